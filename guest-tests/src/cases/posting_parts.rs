//! Much that is read in small pieces, of which a thread finds several without asking: see `posting`.

use std::os::fd::RawFd;

use super::posting::{epoll_of, pairs, ready, warm};
use super::tcp::recv;
use crate::harness::{End, cases, close, fork, ok, read, wait, write};

cases!("posting": much_in_pieces, waiting_bytes, short_means_all, what_is_left_waits_still);

const MUCH: usize = 100_000;

fn pattern(round: usize) -> Vec<u8> {
    (0..MUCH).map(|i| (i % 251 + round) as u8).collect()
}

fn waiting(fd: RawFd) -> i32 {
    let mut n = -1;
    ok!(libc::ioctl(fd, libc::FIONREAD, &raw mut n));
    n
}

/// All that another process sends comes, in order, whatever the size of the pieces, and by which calls.
fn much_in_pieces() {
    for (a, b) in pairs() {
        warm((a, b));
        let child = fork(|| {
            for round in 0..60 {
                let data = pattern(round);
                let mut at = 0;
                while at < data.len() {
                    at += super::tcp::send(a, &data[at..], 0).expect("send") as usize;
                }
                assert_eq!(read(a, 10), b"next");
            }
            0
        });
        let epoll = epoll_of(&[b]);
        for round in 0..60 {
            let mut got = Vec::new();
            let size = [1000, 4096, 8192, 16 << 10, 60_000][round % 5];
            while got.len() < MUCH {
                assert_eq!(ready(epoll, 5000), [b]);
                loop {
                    let piece = recv(b, size, libc::MSG_DONTWAIT);
                    match piece {
                        Ok(piece) if piece.is_empty() => panic!("round {round}: an end"),
                        Ok(piece) => got.extend(piece),
                        Err(errno) => {
                            assert_eq!(errno, libc::EAGAIN);
                            break;
                        }
                    }
                    if got.len() < MUCH && round % 2 == 0 && waiting(b) == 0 {
                        break;
                    }
                }
            }
            assert!(got == pattern(round), "round {round}");
            write(b, b"next");
        }
        assert_eq!(wait(child), End::Exited(0));
        for fd in [epoll, a, b] {
            close(fd);
        }
    }
}

/// How many bytes wait is exact, also of what was sent a moment ago.
fn waiting_bytes() {
    for (a, b) in pairs() {
        let _ = super::tcp::set(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        warm((a, b));
        for round in 0..40 {
            let data = pattern(round);
            let mut sent = 0;
            for piece in data.chunks(10_000) {
                write(a, piece);
                sent += piece.len();
                assert_eq!(waiting(b), sent as i32, "round {round}");
            }
            while sent > 0 {
                let piece = read(b, 3000);
                assert!(piece == data[MUCH - sent..][..piece.len()], "round {round}, {sent} left");
                sent -= piece.len();
                assert_eq!(waiting(b), sent as i32, "round {round}");
                if round % 3 == 0 && sent % 7000 == 1000 {
                    // Nobody else's bytes count.
                    write(b, b"back");
                    assert_eq!(read(a, 10), b"back");
                }
            }
            write(a, b"more");
            assert_eq!((waiting(b), read(b, 100)), (4, b"more".to_vec()));
            assert_eq!(waiting(b), 0);
        }
        for fd in [a, b] {
            close(fd);
        }
    }
}

/// Who asks for more than it gets may take it that no more was there.
fn short_means_all() {
    for (a, b) in pairs() {
        warm((a, b));
        for round in 0..40 {
            let data = pattern(round);
            write(a, &data);
            let mut got = read(b, 2000);
            got.extend(read(b, 2000));
            for size in [30_000, 3000, 90_000] {
                let piece = read(b, size);
                assert_eq!(piece.len(), size.min(MUCH - got.len()), "round {round}");
                got.extend(piece);
            }
            assert!(got == data, "round {round}");
            assert_eq!(recv(b, 100, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
        }
        for fd in [a, b] {
            close(fd);
        }
    }
}

/// Bytes that were found and not read wait still after a look at what is ready, also one that does not tell of them.
fn what_is_left_waits_still() {
    for (a, b) in pairs() {
        let _ = super::tcp::set(a, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        warm((a, b));
        let (c, d) = pairs()[1];
        let other = epoll_of(&[c, d]);
        for round in 0..40 {
            write(a, &[7; 1000]);
            assert_eq!(recv(b, 300, libc::MSG_DONTWAIT).map(|piece| piece.len()), Ok(300), "round {round}");
            if round % 3 > 0 {
                write(d, b"else");
                assert_eq!((ready(other, 5000), read(c, 10)), (vec![c], b"else".to_vec()));
            }
            assert_eq!(ready(other, 0), []);
            if round % 2 > 0 {
                assert_eq!(waiting(b), 700, "round {round}");
            }
            assert_eq!(recv(b, 700, libc::MSG_DONTWAIT).map(|piece| piece.len()), Ok(700), "round {round}");
            assert_eq!(recv(b, 700, libc::MSG_DONTWAIT), Err(libc::EAGAIN));
        }
        for fd in [other, a, b, c, d] {
            close(fd);
        }
    }
}
