//! CPUs of threads. A new thread has those of the one that started it, which may have chosen for its own ends.

use rustix::process::getpid;
use rustix::thread::{sched_getaffinity, sched_setaffinity};

/// Lets the current thread run wherever the process's first thread may.
pub fn run_anywhere() {
    let (Ok(all), Ok(own)) = (sched_getaffinity(Some(getpid())), sched_getaffinity(None)) else { return };
    // What was never set follows the control group's set of CPUs when that grows.
    if own != all {
        // Without it the thread keeps to fewer; only speed is lost.
        let _ = sched_setaffinity(None, &all);
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::getpid;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    use super::run_anywhere;
    use crate::{block_on, blocking};

    #[test]
    fn threads_do_not_inherit_the_cpus_of_a_choosy_one() {
        let all = sched_getaffinity(Some(getpid())).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        std::thread::spawn(move || {
            sched_setaffinity(None, &one).unwrap();
            assert_eq!(sched_getaffinity(None).unwrap(), one);
            // More than other tests have left idle.
            let calls: Vec<_> = (0..8).map(|_| blocking(|| sched_getaffinity(None).unwrap())).collect();
            for call in calls {
                assert_eq!(block_on(call), all);
            }
            run_anywhere();
            assert_eq!(sched_getaffinity(None).unwrap(), all);
        })
        .join()
        .unwrap();
    }
}
