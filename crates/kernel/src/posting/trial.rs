//! Whether grants pay: for threads that wait often, and use what they are given.

/// A thread is granted something when so many descriptors of its could have been ...
const BUSY: u32 = 4;
/// ... within this many nanoseconds.
const BUSY_NS: u64 = 4_000_000;
/// After so many grants it is judged what they brought.
const TRIAL: u32 = 64;
/// How long a thread to which they brought little goes without, in nanoseconds: twice as long after each trial of the
/// kind, up to the second, which is also how long what a thread was seen to do counts.
const FIRST_REST_NS: u64 = 16_000_000;
const REST_NS: u64 = 1_000_000_000;
/// A thread that has read so often until nothing was there is told so before it reads, for [`REST_NS`].
const DRY: u32 = 4;

/// How often it could have been granted something of late.
#[derive(Default)]
pub(super) struct Busy {
    since: u64,
    count: u32,
}

/// What grants have brought.
#[derive(Default)]
pub(super) struct Trial {
    pub(super) grants: u32,
    pub(super) offered: u32,
    pub(super) read: u32,
    /// Reads without an answer: an offer can be read in pieces.
    pub(super) pieces: u32,
    pub(super) written: u32,
    /// How often something was sent only because time had passed.
    pub(super) late: u32,
    /// Not to be granted anything, or nothing to read, before.
    pub(super) rest: Rest,
    pub(super) no_reads: Rest,
    /// How often a read has found nothing of late, and until when a thread is told that before it reads.
    dry: u32,
    pub(super) dries_until: u64,
}

/// What has not paid is left for a while: for a short one at first, as trials under a load that just begins, or while
/// others have the CPUs, say little.
#[derive(Clone, Copy, Default)]
pub(super) struct Rest {
    until: u64,
    /// The last one; 0 once it has paid.
    length: u64,
}

impl Rest {
    pub(super) fn is_over(&self, now: u64) -> bool {
        self.until <= now
    }
    fn judge(&mut self, now: u64, pays: bool) {
        self.length = if pays { 0 } else { (2 * self.length).clamp(FIRST_REST_NS, REST_NS) };
        self.until = now.saturating_add(self.length);
    }
}

impl Busy {
    pub(super) fn is(&mut self, now: u64, more: usize) -> bool {
        if now.saturating_sub(self.since) > BUSY_NS {
            // Who was busy until now goes on.
            let was = self.count >= BUSY && now.saturating_sub(self.since) < 2 * BUSY_NS;
            *self = Busy { since: now, count: if was { BUSY } else { 0 } };
        }
        self.count = self.count.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
        self.count > BUSY
    }
}

impl Trial {
    pub(super) fn judge(&mut self, now: u64) {
        if self.grants < TRIAL {
            return;
        }
        let used = self.pieces.max(self.read).saturating_add(self.written);
        // Late ones keep others waiting: what comes of them is to outweigh that, reads as well as writes.
        self.rest.judge(now, used >= self.grants / 2 && self.late <= used / 8);
        if self.offered > 0 {
            self.no_reads.judge(now, self.read >= self.offered / 2);
        }
        let Trial { rest, no_reads, dry, dries_until, .. } = *self;
        *self = Trial { rest, no_reads, dry, dries_until, ..Trial::default() };
    }

    /// It has asked how much waits: it is told that before it asks.
    pub(super) fn asked(&mut self, now: u64) {
        self.dries_until = now.saturating_add(REST_NS);
    }

    /// A read has found nothing.
    pub(super) fn was_dry(&mut self, now: u64) {
        self.dry += 1;
        if self.dry >= DRY {
            (self.dry, self.dries_until) = (0, now.saturating_add(REST_NS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BUSY, BUSY_NS, Busy, DRY, FIRST_REST_NS, REST_NS, TRIAL, Trial};

    #[test]
    fn who_waits_often_is_busy() {
        let mut busy = Busy::default();
        let start = 10 * BUSY_NS;
        assert!((0..u64::from(BUSY)).all(|i| !busy.is(start + i, 1)));
        // From then on, as long as it goes on like this.
        assert!((0..100).all(|i| busy.is(start + 10 + i * BUSY_NS / 10, 1)));
        assert!(!busy.is(start + 100 * BUSY_NS, 1));
        // Rarely, but for many.
        assert!(busy.is(start + 200 * BUSY_NS, 100));
    }

    #[test]
    fn what_brings_nothing_rests() {
        let trial = |read, written, late| {
            let mut trial = Trial { grants: TRIAL, offered: TRIAL, read, written, late, ..Trial::default() };
            trial.judge(1);
            (!trial.rest.is_over(1), !trial.no_reads.is_over(1))
        };
        assert_eq!(trial(TRIAL, TRIAL, 0), (false, false));
        assert_eq!(trial(0, TRIAL, 0), (false, true));
        assert_eq!(trial(TRIAL / 4, TRIAL / 8, 0), (true, true));
        assert_eq!(trial(TRIAL, TRIAL, TRIAL / 2), (true, false));
        // Few writes are late once where the CPUs are others'.
        assert_eq!(trial(TRIAL, 4, 4), (false, false));
        let mut early = Trial { grants: TRIAL - 1, ..Trial::default() };
        early.judge(1);
        assert!(early.rest.is_over(1));
    }

    #[test]
    fn an_offer_is_read_in_pieces() {
        let mut trial = Trial { grants: TRIAL, offered: 8, read: 8, pieces: 48, ..Trial::default() };
        trial.judge(1);
        assert!(trial.rest.is_over(1) && trial.no_reads.is_over(1));
    }

    #[test]
    fn rests_grow_until_it_pays() {
        let mut trial = Trial::default();
        let mut judge = |now, read| {
            (trial.grants, trial.offered, trial.read) = (TRIAL, TRIAL, read);
            trial.judge(now);
            (trial.rest.until - now, trial.no_reads.until - now)
        };
        for length in [1, 2, 4, 8, 16, 32].map(|n| n * FIRST_REST_NS) {
            assert_eq!(judge(7, 0), (length, length));
        }
        assert_eq!((judge(7, 0), judge(8, 0)), ((REST_NS, REST_NS), (REST_NS, REST_NS)));
        assert_eq!(judge(9, TRIAL), (0, 0));
        assert_eq!(judge(10, 0).0, FIRST_REST_NS);
    }

    #[test]
    fn who_reads_until_nothing_is_there_is_told() {
        let mut trial = Trial::default();
        assert!((1..DRY).all(|_| {
            trial.was_dry(1);
            trial.dries_until == 0
        }));
        trial.was_dry(1);
        assert_eq!(trial.dries_until, 1 + REST_NS);
        // What grants bring has no say in that.
        trial.grants = TRIAL;
        trial.judge(2);
        assert_eq!(trial.dries_until, 1 + REST_NS);
    }
}
