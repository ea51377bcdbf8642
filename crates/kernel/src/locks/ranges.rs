//! Byte-range locks of one file: fcntl(2).

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Owner {
    /// A process (traditional locks), by id.
    Process(i32),
    /// An open file description, by its id.
    Open(u64),
}

/// A lock of the bytes from `start` to `end`, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeLock {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// Exclusive.
    pub write: bool,
    /// Who holds it.
    pub owner: Owner,
}

/// The range locks of one file.
#[derive(Default, Debug)]
pub struct Ranges(Vec<RangeLock>);

impl Ranges {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// The first lock of somebody else that keeps `wanted` out.
    pub fn conflict(&self, wanted: &RangeLock) -> Option<RangeLock> {
        let in_the_way = |l: &&RangeLock| {
            l.owner != wanted.owner
                && l.start <= wanted.end
                && wanted.start <= l.end
                && (l.write || wanted.write)
        };
        self.0.iter().filter(in_the_way).min_by_key(|l| l.start).copied()
    }

    /// Takes away what an owner holds of a range, splitting locks that reach beyond. True if there was something.
    pub fn unlock(&mut self, owner: Owner, start: u64, end: u64) -> bool {
        let mut rest = Vec::new();
        let mut found = false;
        self.0.retain(|l| {
            if l.owner != owner || l.start > end || l.end < start {
                return true;
            }
            found = true;
            if l.start < start {
                rest.push(RangeLock { end: start - 1, ..*l });
            }
            if l.end > end {
                rest.push(RangeLock { start: end + 1, ..*l });
            }
            false
        });
        self.0.append(&mut rest);
        found
    }

    /// Gives a lock that nothing is in the way of; what the owner held of the range is replaced, and neighbours of
    /// the same kind become one.
    pub fn lock(&mut self, mut new: RangeLock) {
        self.unlock(new.owner, new.start, new.end);
        self.0.retain(|l| {
            let same = l.owner == new.owner && l.write == new.write;
            let before = l.end.checked_add(1) == Some(new.start);
            let after = new.end.checked_add(1) == Some(l.start);
            if !same || !(before || after) {
                return true;
            }
            new.start = new.start.min(l.start);
            new.end = new.end.max(l.end);
            false
        });
        self.0.push(new);
    }

    /// Takes away all of an owner. True if there was something.
    pub fn release(&mut self, owner: Owner) -> bool {
        let before = self.0.len();
        self.0.retain(|l| l.owner != owner);
        self.0.len() != before
    }

    /// All locks.
    pub fn iter(&self) -> impl Iterator<Item = &RangeLock> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::{Owner, RangeLock, Ranges};

    const A: Owner = Owner::Process(1);
    const B: Owner = Owner::Open(1);

    fn lock(owner: Owner, start: u64, end: u64, write: bool) -> RangeLock {
        RangeLock { start, end, write, owner }
    }

    #[test]
    fn unlocking_the_middle_leaves_both_ends() {
        let mut ranges = Ranges::default();
        ranges.lock(lock(A, 0, 99, true));
        assert!(ranges.unlock(A, 40, 59));
        assert!(!ranges.unlock(A, 40, 59));
        assert_eq!(ranges.conflict(&lock(B, 30, 45, false)), Some(lock(A, 0, 39, true)));
        assert_eq!(ranges.conflict(&lock(B, 40, 59, true)), None);
        assert_eq!(ranges.conflict(&lock(B, 50, u64::MAX, false)), Some(lock(A, 60, 99, true)));
    }

    #[test]
    fn readers_share_and_neighbours_join() {
        let mut ranges = Ranges::default();
        ranges.lock(lock(A, 0, 9, false));
        ranges.lock(lock(A, 20, 29, false));
        ranges.lock(lock(A, 10, 19, false));
        assert_eq!(ranges.len(), 1);
        assert_eq!(ranges.conflict(&lock(B, 0, 5, false)), None);
        assert!(ranges.conflict(&lock(B, 0, 5, true)).is_some());
        // A change of kind splits.
        ranges.lock(lock(A, 5, 7, true));
        assert_eq!(ranges.len(), 3);
        assert!(ranges.release(A) && ranges.is_empty());
    }
}
