//! The path of a place, as getcwd(2) and /proc show it.

use std::sync::Arc;

use crate::Place;

/// The most components; a tree is as deep as the guest makes it, a path longer than this is of no use.
const MAX_DEPTH: usize = 64 << 10;

impl Place {
    /// Its path as seen from `root`: `(unreachable)` in front when it is outside, ` (deleted)` behind when its
    /// name is gone. Anonymous files give their name alone.
    pub fn path(&self, root: &Place) -> Vec<u8> {
        let (mut path, reached) = self.components(root);
        if !reached {
            if self.mount.namespace().is_none() && self.dentry.parent().is_none() {
                return self.dentry.name().to_vec();
            }
            path.splice(0..0, *b"(unreachable)");
        }
        if self.dentry.is_deleted() {
            path.extend_from_slice(b" (deleted)");
        }
        path
    }

    /// Its path as seen from `root`, if it is below it and its name is not removed.
    pub fn reachable_path(&self, root: &Place) -> Option<Vec<u8>> {
        let (path, reached) = self.components(root);
        (reached && !self.dentry.is_deleted()).then_some(path)
    }

    /// The path up to `root` or to the top, and whether it was `root`.
    fn components(&self, root: &Place) -> (Vec<u8>, bool) {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let mut at = self.clone();
        let reached = loop {
            if at.same(root) {
                break true;
            }
            if Arc::ptr_eq(&at.dentry, &at.mount.root) {
                match at.mount.at() {
                    Some(up) => at = up,
                    None => break false,
                }
                continue;
            }
            let (parent, name) = at.dentry.parent_and_name();
            let Some(parent) = parent else { break false };
            if names.len() >= MAX_DEPTH {
                break false;
            }
            names.push(name);
            at.dentry = parent;
        };
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        (path, reached)
    }
}
