//! `HOME` for programs that are started without one, as runc sets it.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use control::ProcessSpec;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

/// A passwd file longer than this is not searched further.
const LONGEST_BYTES: u64 = 1 << 20;

/// Adds `HOME=` from the guest's /etc/passwd, else `/`, unless there is one.
pub(crate) fn ensure(process: &mut ProcessSpec, root: Option<impl AsFd>) {
    if process.env.iter().any(|entry| entry.as_encoded_bytes().starts_with(b"HOME=")) {
        return;
    }
    let home = root
        .and_then(|root| read_passwd(root))
        .and_then(|passwd| find(&passwd, process.uid))
        .unwrap_or_else(|| "/".to_owned());
    process.env.push(format!("HOME={home}").into());
}

/// The guest may have made anything of that name: only a regular file inside
/// its root is read.
fn read_passwd(root: impl AsFd) -> Option<String> {
    let file: OwnedFd = rustix::fs::openat2(
        root,
        "etc/passwd",
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
    .ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = Vec::new();
    File::from(file).take(LONGEST_BYTES).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn find(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let known: u32 = fields.get(2)?.parse().ok()?;
        let home = fields.get(5).filter(|home| !home.is_empty())?;
        (known == uid).then(|| (*home).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_comes_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbad line\napp:x:7:7::/srv:/bin/false\n";
        assert_eq!(find(passwd, 0).as_deref(), Some("/root"));
        assert_eq!(find(passwd, 7).as_deref(), Some("/srv"));
        assert_eq!(find(passwd, 8), None);
    }

    #[test]
    fn a_given_home_stays() {
        let mut process = ProcessSpec { env: vec!["HOME=/x".into()], ..ProcessSpec::default() };
        ensure(&mut process, None::<OwnedFd>);
        assert_eq!(process.env, ["HOME=/x"]);
        process.env.clear();
        ensure(&mut process, None::<OwnedFd>);
        assert_eq!(process.env, ["HOME=/"]);
    }
}
