//! Streams that are read and written often: such calls may be done without waiting for the kernel process. Nobody
//! must be able to tell, whoever looks, and however a connection ends.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::tcp::{connected, poll, recv, send};
use crate::harness::{End, cases, close, errno, fork, ok, read, sleep_ms, sys, wait, write, zeroed};

cases!("posting": echo, seen_at_once, order_over_descriptors, order_over_streams, closed_peer, closed_by_another,
    last_words, killed, reused_number, child_goes_on, asleep, full, bad_addresses, half_close, executed, polled, forged);

/// So many times until calls are done without an answer.
const WARM: usize = 300;

pub(super) fn pairs() -> [(RawFd, RawFd); 2] {
    let mut ends = [0; 2];
    ok!(libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()));
    [connected(), (ends[0], ends[1])]
}

pub(super) fn epoll_of(fds: &[RawFd]) -> RawFd {
    let epoll = ok!(libc::epoll_create1(0));
    for fd in fds {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: *fd as u64 };
        ok!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, *fd, &raw mut event));
    }
    epoll
}

pub(super) fn ready(epoll: RawFd, timeout: i32) -> Vec<RawFd> {
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    let n = ok!(libc::epoll_wait(epoll, events.as_mut_ptr(), 64, timeout));
    events[..n as usize].iter().map(|event| event.u64 as RawFd).collect()
}

/// One message there and back, both ends waiting by epoll, until both sides are granted all that can be.
pub(super) fn warm((a, b): (RawFd, RawFd)) {
    let (of_a, of_b) = (epoll_of(&[a]), epoll_of(&[b]));
    for _ in 0..WARM {
        for (from, to, epoll) in [(a, b, of_b), (b, a, of_a)] {
            write(from, b"ping");
            assert_eq!(ready(epoll, 5000), [to]);
            assert_eq!(read(to, 100), b"ping");
        }
    }
    // The last grant is `a`'s: one read and one write.
    close(of_a);
    close(of_b);
}

/// A server for many connections, each of whose messages comes back whole, whatever its size.
fn echo() {
    for unix in [false, true] {
        let ends: Vec<_> = (0..20).map(|_| pairs()[usize::from(unix)]).collect();
        let servers: Vec<_> = ends.iter().map(|(_, server)| *server).collect();
        let server = std::thread::spawn(move || {
            let epoll = epoll_of(&servers);
            let mut open = servers.len();
            while open > 0 {
                for fd in ready(epoll, 10_000) {
                    let data = read(fd, 16 << 10);
                    if data.is_empty() {
                        close(fd);
                        open -= 1;
                    }
                    let mut at = 0;
                    while at < data.len() {
                        at += send(fd, &data[at..], 0).expect("send") as usize;
                    }
                }
            }
        });
        let clients: Vec<_> = ends.iter().map(|(client, _)| *client).collect();
        let epoll = epoll_of(&clients);
        let message = |round: usize, fd: RawFd| -> Vec<u8> {
            let size =
                if round.is_multiple_of(50) { 9_000 } else { 1 + (round * 37 + fd as usize * 11) % 600 };
            (0..size).map(|i| (i + round + fd as usize) as u8).collect()
        };
        let mut rounds: HashMap<RawFd, (usize, Vec<u8>)> = HashMap::new();
        for fd in &clients {
            write(*fd, &message(0, *fd));
            rounds.insert(*fd, (0, Vec::new()));
        }
        let mut left = clients.len();
        while left > 0 {
            for fd in ready(epoll, 10_000) {
                let (round, got) = rounds.get_mut(&fd).expect("a client");
                got.extend(read(fd, 16 << 10));
                let wanted = message(*round, fd);
                if got.len() < wanted.len() {
                    continue;
                }
                assert!(*got == wanted, "round {round} of {fd}");
                got.clear();
                *round += 1;
                if *round == 400 {
                    close(fd);
                    left -= 1;
                } else {
                    write(fd, &message(*round, fd));
                }
            }
        }
        server.join().expect("the server");
    }
}

/// What one thread has written before it tells another, in memory, is there for the other.
fn seen_at_once() {
    for pair in pairs() {
        let (a, b) = pair;
        warm(pair);
        let turn = Arc::new(AtomicU32::new(0));
        let of_writer = turn.clone();
        let writer = std::thread::spawn(move || {
            let epoll = epoll_of(&[a]);
            for i in 0..2000_u32 {
                while of_writer.load(Ordering::SeqCst) != 2 * i {
                    std::thread::yield_now();
                }
                // Granted by this read, for it was waited for.
                if i > 0 {
                    assert_eq!(ready(epoll, 5000), [a]);
                    assert_eq!(read(a, 10), b"y");
                }
                write(a, b"x");
                of_writer.store(2 * i + 1, Ordering::SeqCst);
            }
        });
        for i in 0..2000_u32 {
            while turn.load(Ordering::SeqCst) != 2 * i + 1 {
                std::thread::yield_now();
            }
            assert_eq!(poll(b, 0) & libc::POLLIN, libc::POLLIN, "round {i}");
            assert_eq!(recv(b, 10, libc::MSG_DONTWAIT), Ok(b"x".to_vec()));
            write(b, b"y");
            turn.store(2 * i + 2, Ordering::SeqCst);
        }
        writer.join().expect("the writer");
    }
}

/// Two descriptors of one connection, and one that a thread reads beside another.
fn order_over_descriptors() {
    for pair in pairs() {
        let (a, b) = pair;
        warm(pair);
        let twin = ok!(libc::dup(a));
        let epoll = epoll_of(&[a]);
        // For TCP: three small writes in a row would wait for an acknowledgement.
        let _ = super::tcp::set(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        for i in 0..300_u32 {
            write(b, b"go");
            assert_eq!(ready(epoll, 5000), [a]);
            let first = if i % 2 == 0 { a } else { twin };
            assert_eq!(read(first, 10), b"go");
            write(a, b"1");
            write(twin, b"2");
            write(a, b"3");
            let mut got = Vec::new();
            while got.len() < 3 {
                got.extend(read(b, 10));
            }
            assert_eq!(got, b"123");
        }
        // What nobody has read yet is there for whoever comes first.
        write(b, b"again");
        assert_eq!(ready(epoll, 5000), [a]);
        let other = std::thread::spawn(move || read(twin, 10));
        assert_eq!(other.join().expect("the reader"), b"again");
        assert_eq!(recv(a, 10, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
    }
}

/// Who waits for several connections finds them in the order in which they were written to.
fn order_over_streams() {
    for unix in [false, true] {
        let ends: [_; 3] = std::array::from_fn(|_| pairs()[usize::from(unix)]);
        ends.into_iter().for_each(warm);
        let sides = [ends.map(|(a, _)| a), ends.map(|(_, b)| b)];
        let epolls = sides.map(|fds| epoll_of(&fds));
        let mut astray = 0;
        for round in 0..WARM {
            let order: [usize; 3] =
                std::array::from_fn(|i| (if round % 2 == 0 { i } else { 2 - i } + round / 2) % 3);
            for (from, to) in [(0, 1), (1, 0)] {
                for i in order {
                    write(sides[from][i], b"ping");
                }
                let mut got = Vec::new();
                while got.len() < ends.len() {
                    for fd in ready(epolls[to], 5000) {
                        assert_eq!(read(fd, 100), b"ping");
                        got.push(fd);
                    }
                }
                astray += usize::from(got != order.map(|i| sides[to][i]));
                // Only now epoll(7) forgets the order in which it has told of them.
                assert!(ready(epolls[to], 0).is_empty());
            }
        }
        // A busy host delivers by another thread what is on its way by TCP.
        assert!(astray <= if unix { 0 } else { WARM / 20 }, "{unix}: {astray}");
    }
}

/// The errors of writing to a connection whose other end is closed, in order.
fn errors(fd: RawFd) -> [Result<isize, i32>; 3] {
    std::array::from_fn(|_| {
        sleep_ms(5);
        send(fd, b"late", libc::MSG_NOSIGNAL)
    })
}

fn closed_peer() {
    for (kind, unread) in [(0, false), (0, true), (1, false), (1, true)] {
        let pair = pairs()[kind];
        let (a, b) = pair;
        let fresh = pairs()[kind];
        warm(pair);
        write(b, b"last");
        write(fresh.1, b"last");
        assert_eq!((read(a, 10), read(fresh.0, 10)), (b"last".to_vec(), b"last".to_vec()));
        if unread {
            write(a, b"unread");
            write(fresh.0, b"unread");
        }
        close(b);
        close(fresh.1);
        assert_eq!(errors(a), errors(fresh.0), "{kind} {unread}");
    }
}

/// As `closed_peer`, where the writer learns of the end in memory alone.
fn closed_by_another() {
    for round in 0..40 {
        for pair in pairs() {
            let (a, b) = pair;
            warm(pair);
            let closed = Arc::new(AtomicU32::new(0));
            let by_other = closed.clone();
            let other = std::thread::spawn(move || {
                // A reset follows: this is not read.
                write(b, b"x");
                close(b);
                by_other.store(1, Ordering::SeqCst);
            });
            while closed.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            let first = send(a, b"late", libc::MSG_NOSIGNAL);
            // TCP answers the first with a reset; a local socket refuses it.
            assert!(first == Ok(4) || first == Err(libc::EPIPE), "round {round}: {first:?}");
            sleep_ms(2);
            let second = send(a, b"late", libc::MSG_NOSIGNAL).expect_err("it is closed");
            assert!([libc::EPIPE, libc::ECONNRESET].contains(&second), "round {round}: {second}");
            other.join().expect("the other");
            if round > 3 {
                break;
            }
        }
    }
}

/// What is written right before the end arrives.
fn last_words() {
    for pair in pairs() {
        let (a, b) = pair;
        for _ in 0..20 {
            let child = fork(|| {
                warm((a, b));
                write(b, b"go");
                let epoll = epoll_of(&[a]);
                assert_eq!(ready(epoll, 5000), [a]);
                assert_eq!(read(a, 10), b"go");
                write(a, b"bye");
                0
            });
            assert_eq!(wait(child), End::Exited(0));
            assert_eq!(recv(b, 10, libc::MSG_DONTWAIT), Ok(b"bye".to_vec()));
        }
    }
}

/// A process that is killed has written what it has written.
fn killed() {
    for pair in pairs() {
        let (a, b) = pair;
        let shared = shared_words();
        for _ in 0..20 {
            shared[0].store(0, Ordering::SeqCst);
            let child = fork(|| {
                warm((a, b));
                write(b, b"go");
                let epoll = epoll_of(&[a]);
                assert_eq!(ready(epoll, 5000), [a]);
                assert_eq!(read(a, 10), b"go");
                write(a, b"bye");
                shared[0].store(1, Ordering::SeqCst);
                loop {
                    std::hint::spin_loop();
                }
            });
            while shared[0].load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            ok!(libc::kill(child, libc::SIGKILL));
            assert_eq!(wait(child), End::Killed(libc::SIGKILL));
            assert_eq!(recv(b, 10, libc::MSG_DONTWAIT), Ok(b"bye".to_vec()));
        }
    }
}

/// Memory shared with children.
pub(super) fn shared_words() -> &'static [AtomicU32; 2] {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping, zeroed, that is never unmapped.
    unsafe { &*libc::mmap(std::ptr::null_mut(), 4096, prot, flags, -1, 0).cast() }
}

/// A descriptor's number names another connection at once.
fn reused_number() {
    for pair in pairs() {
        let (a, b) = pair;
        warm(pair);
        let (c, d) = pairs()[1];
        let epoll = epoll_of(&[a]);
        write(b, b"for a");
        assert_eq!(ready(epoll, 5000), [a]);
        write(d, b"for c");
        ok!(libc::dup2(c, a));
        assert_eq!(read(a, 10), b"for c");
        write(a, b"from c");
        assert_eq!(read(d, 10), b"from c");
        let end = recv(b, 10, 0);
        assert!(end == Ok(Vec::new()) || end == Err(libc::ECONNRESET), "{end:?}");
    }
}

/// A child reads and writes the connection that its parent uses.
fn child_goes_on() {
    for pair in pairs() {
        let (a, b) = pair;
        warm(pair);
        let epoll = epoll_of(&[a]);
        for _ in 0..10 {
            write(b, b"go");
            assert_eq!(ready(epoll, 5000), [a]);
            write(a, b"1");
            let child = fork(|| {
                write(a, b"2");
                assert_eq!(read(a, 10), b"go");
                0
            });
            assert_eq!(wait(child), End::Exited(0));
            write(a, b"3");
            let mut got = Vec::new();
            while got.len() < 3 {
                got.extend(read(b, 10));
            }
            assert_eq!(got, b"123");
            assert_eq!(recv(a, 10, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
        }
    }
}

/// Who writes and then makes no call for a long time is heard all the same.
fn asleep() {
    for pair in pairs() {
        let (a, b) = pair;
        let shared = shared_words();
        let child = fork(|| {
            warm((a, b));
            write(b, b"go");
            let epoll = epoll_of(&[a]);
            assert_eq!(ready(epoll, 5000), [a]);
            assert_eq!(read(a, 10), b"go");
            write(a, b"now");
            shared[1].store(1, Ordering::SeqCst);
            while shared[0].load(Ordering::SeqCst) == 0 {
                std::hint::spin_loop();
            }
            0
        });
        while shared[1].load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let mut fds = [libc::pollfd { fd: b, events: libc::POLLIN, revents: 0 }];
        assert_eq!(ok!(libc::poll(fds.as_mut_ptr(), 1, 5000)), 1);
        assert_eq!(read(b, 10), b"now");
        shared[0].store(1, Ordering::SeqCst);
        assert_eq!(wait(child), End::Exited(0));
        shared[0].store(0, Ordering::SeqCst);
        shared[1].store(0, Ordering::SeqCst);
    }
}

/// A reader that takes nothing stops the writer, and all comes in the end.
fn full() {
    for pair in pairs() {
        let (a, b) = pair;
        warm(pair);
        super::tcp::nonblocking(a);
        let (mut sent, mut got) = (0_usize, 0_usize);
        let data: Vec<u8> = (0..1000).map(|i| (i % 251) as u8).collect();
        let epoll = epoll_of(&[a]);
        for round in 0..200 {
            write(b, b"go");
            assert_eq!(ready(epoll, 5000), [a]);
            assert_eq!(read(a, 10), b"go");
            loop {
                match send(a, &data[sent % 1000..], 0) {
                    Ok(n) => sent += n as usize,
                    Err(errno) => {
                        assert_eq!(errno, libc::EAGAIN);
                        break;
                    }
                }
                if round % 5 != 0 {
                    break;
                }
            }
            while got < sent {
                for byte in recv(b, 64 << 10, 0).expect("receive") {
                    assert_eq!(byte, data[got % 1000]);
                    got += 1;
                }
            }
        }
    }
}

/// Bad addresses are refused, and cost nothing of what comes after.
fn bad_addresses() {
    for pair in pairs() {
        let (a, b) = pair;
        warm(pair);
        let epoll = epoll_of(&[a]);
        for _ in 0..50 {
            write(b, b"go");
            assert_eq!(ready(epoll, 5000), [a]);
            let bad = 0x1000 as *mut libc::c_void;
            // SAFETY: the address is bad on purpose; nothing is read or written there.
            let (sent, refused) = unsafe { (libc::write(a, bad, 3), errno()) };
            assert_eq!((sent, refused), (-1, libc::EFAULT));
            // SAFETY: as above.
            let (got, refused) = unsafe { (libc::read(a, bad, 10), errno()) };
            assert_eq!((got, refused), (-1, libc::EFAULT));
            write(a, b"ok");
            assert_eq!(read(b, 10), b"ok");
            // Whether the failed read has taken the bytes is another question.
            let _ = recv(a, 10, libc::MSG_DONTWAIT);
        }
    }
}

/// shutdown(2) comes after what was written before it.
fn half_close() {
    for pair in pairs() {
        let (a, b) = pair;
        warm(pair);
        let epoll = epoll_of(&[a]);
        write(b, b"go");
        assert_eq!(ready(epoll, 5000), [a]);
        assert_eq!(read(a, 10), b"go");
        write(a, b"end");
        ok!(libc::shutdown(a, libc::SHUT_WR));
        assert_eq!((read(b, 10), read(b, 10)), (b"end".to_vec(), Vec::new()));
        assert_eq!(send(a, b"late", libc::MSG_NOSIGNAL), Err(libc::EPIPE));
        write(b, b"still");
        assert_eq!(read(a, 10), b"still");
    }
}

/// What was written before exec arrives, and the new program has nothing of the old one's.
fn executed() {
    for pair in pairs() {
        let (a, b) = pair;
        let child = fork(|| {
            warm((a, b));
            write(b, b"go");
            let epoll = epoll_of(&[a]);
            assert_eq!(ready(epoll, 5000), [a]);
            assert_eq!(read(a, 10), b"go");
            write(a, b"before ");
            ok!(libc::dup2(a, 1));
            let args = [c"echo".as_ptr(), c"after".as_ptr(), std::ptr::null()];
            // SAFETY: NUL-terminated strings and array; only an error comes back.
            unsafe { libc::execv(c"/bin/echo".as_ptr(), args.as_ptr()) };
            1
        });
        assert_eq!(wait(child), End::Exited(0));
        let mut got = Vec::new();
        while got.len() < 13 {
            got.extend(read(b, 100));
        }
        assert_eq!(got, b"before after\n");
    }
}

/// The same with poll(2), and with both ends in one thread.
fn polled() {
    for (a, b) in pairs() {
        for round in 0..500_u32 {
            let word = round.to_ne_bytes();
            for (from, to) in [(a, b), (b, a)] {
                write(from, &word);
                assert_eq!(poll(to, 5000) & libc::POLLIN, libc::POLLIN);
                assert_eq!(read(to, 100), word);
                assert_eq!(poll(to, 0) & libc::POLLIN, 0);
            }
        }
    }
}

/// Slots of a process, see the sandbox's `slot::layout`; bad addresses natively.
const SLOTS: usize = 0x7e02_0000_0000;
/// In a slot: what was posted and read, grants, posted calls, prefetched bytes.
const PARTS: [(usize, usize); 4] =
    [(0x300, 0x500), (0x1_1000, 0x1_5000), (0x1_5000, 0x1_9000), (0x1_9000, 0x3_9000)];

/// Threads that write what they like where these calls are kept: others, and the kernel process, do not mind.
fn forged() {
    let witness = pairs();
    for (round, (from, to)) in PARTS.into_iter().cycle().take(12).enumerate() {
        let pid = fork(|| {
            ok!(libc::setrlimit(libc::RLIMIT_CORE, &zeroed()));
            ok!(libc::alarm(2));
            let null = ok!(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR));
            (0..3).for_each(|fd| assert_eq!(ok!(libc::dup2(null, fd)), fd));
            let ends: Vec<_> = pairs().into_iter().collect();
            ends.iter().for_each(|pair| warm(*pair));
            let fds: Vec<_> = ends.iter().flat_map(|(a, b)| [*a, *b]).collect();
            fds.iter().for_each(|fd| super::tcp::nonblocking(*fd));
            let epoll = epoll_of(&fds);
            std::thread::spawn(move || {
                let mut random = round as u64 + 1;
                loop {
                    for at in (SLOTS + from..SLOTS + to).step_by(4) {
                        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                        let value = match random >> 61 {
                            0 => 0,
                            1 => u32::MAX,
                            2 => (random >> 40) as u32 & 0x3fff,
                            3 => fds[(random >> 40) as usize % fds.len()] as u32 + 1,
                            4 => 1 << (random >> 40 & 31),
                            5 => (random >> 40) as u32 & 0xff,
                            6 => 8,
                            _ => random as u32,
                        };
                        if (random >> 33).is_multiple_of(3) {
                            // SAFETY: on purpose: the sandbox's own memory, if there is any.
                            unsafe { (at as *mut u32).write_volatile(value) };
                        }
                    }
                }
            });
            let end = std::time::Instant::now() + std::time::Duration::from_millis(80);
            let mut buf = [0_u8; 8192];
            while std::time::Instant::now() < end {
                for (a, b) in &ends {
                    for (from, to) in [(*a, *b), (*b, *a)] {
                        let _ = sys!(libc::write(from, buf.as_ptr().cast(), 100));
                        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
                        let _ = sys!(libc::epoll_wait(epoll, events.as_mut_ptr(), 8, 0));
                        let _ = sys!(libc::read(to, buf.as_mut_ptr().cast(), 8192));
                        let _ = sys!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_MOD, to, events.as_mut_ptr()));
                    }
                }
            }
            // SAFETY: ends the process with its thread.
            unsafe { libc::_exit(0) }
        });
        wait(pid);
        for (a, b) in witness {
            write(a, b"fine");
            assert_eq!(read(b, 100), b"fine");
        }
    }
}
