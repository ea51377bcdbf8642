//! Whether grants pay: for threads that wait often, and use what they are given.

/// A thread is granted something when so many descriptors of its could have been ...
const BUSY: u32 = 4;
/// ... within this many nanoseconds.
const BUSY_NS: u64 = 4_000_000;
/// After so many grants it is judged what they brought.
const TRIAL: u32 = 64;
/// How long a thread to which they brought little goes without, in nanoseconds.
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
    pub(super) written: u32,
    /// How often something was sent only because time had passed.
    pub(super) late: u32,
    /// Not to be granted anything, or nothing to read, before.
    pub(super) rest_until: u64,
    pub(super) no_reads_until: u64,
    /// How often a read has found nothing of late, and until when a thread is told that before it reads.
    dry: u32,
    pub(super) dries_until: u64,
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
        let used = self.read + self.written;
        if used < self.grants / 2 || self.late > self.written / 8 {
            self.rest_until = now.saturating_add(REST_NS);
        }
        if self.read < self.offered / 2 {
            self.no_reads_until = now.saturating_add(REST_NS);
        }
        let Trial { rest_until, no_reads_until, dry, dries_until, .. } = *self;
        *self = Trial { rest_until, no_reads_until, dry, dries_until, ..Trial::default() };
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
    use super::{BUSY, BUSY_NS, Busy, DRY, REST_NS, TRIAL, Trial};

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
            (trial.rest_until > 1, trial.no_reads_until > 1)
        };
        assert_eq!(trial(TRIAL, TRIAL, 0), (false, false));
        assert_eq!(trial(0, TRIAL, 0), (false, true));
        assert_eq!(trial(TRIAL / 4, TRIAL / 8, 0), (true, true));
        assert_eq!(trial(TRIAL, TRIAL, TRIAL / 4), (true, false));
        let mut early = Trial { grants: TRIAL - 1, ..Trial::default() };
        early.judge(1);
        assert_eq!(early.rest_until, 0);
        let mut resting = Trial { grants: TRIAL, ..Trial::default() };
        resting.judge(1);
        assert_eq!(resting.rest_until, 1 + REST_NS);
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
