//! /proc/sysvipc, and the limits of System V IPC under /proc/sys/kernel.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use kernel::ipc::{self, IPCMNI, IpcNamespace, Limits};
use kernel::{Kernel, Thread};
use linux_abi::Errno;
use vfs::Caller;

use crate::synthetic::{Fixed, Kind, Node, ino_of};

/// The namespace of whoever looks.
fn namespace(caller: &mut dyn Caller, kernel: &Kernel) -> Arc<IpcNamespace> {
    let own = caller.as_any().downcast_ref::<Arc<Thread>>().and_then(|thread| thread.ipc());
    own.map_or_else(|| kernel.ipc.clone(), |ipc| ipc.namespace)
}

/// /proc/sysvipc.
pub(super) fn directory(kernel: &Arc<Kernel>) -> Fixed {
    let file = |name: &str, make: fn(&IpcNamespace) -> String| {
        let kernel = kernel.clone();
        Node::text(&format!("sysvipc/{name}"), move |caller| {
            Ok(make(&namespace(caller, &kernel)).into_bytes())
        })
    };
    Fixed::default().with("shm", file("shm", shm)).with("sem", file("sem", sem)).with("msg", file("msg", msg))
}

fn shm(namespace: &IpcNamespace) -> String {
    let mut out = String::from(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
    );
    for segment in namespace.shm.all() {
        let (s, id) = (segment.stat(), segment.state.lock().perm.id);
        let p = s.perm;
        let _ = writeln!(
            out,
            "{:>10} {id:>10}  {:>4o} {:>21} {:>5} {:>5}  {:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10} {:>21} {:>21}",
            p.key,
            p.mode,
            s.segsz,
            s.cpid,
            s.lpid,
            s.nattch,
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            s.atime,
            s.dtime,
            s.ctime,
            0,
            0
        );
    }
    out
}

fn sem(namespace: &IpcNamespace) -> String {
    let mut out = String::from(
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n",
    );
    for set in namespace.sem.all() {
        let (s, id) = (set.stat(), set.state.lock().perm.id);
        let p = s.perm;
        let _ = writeln!(
            out,
            "{:>10} {id:>10}  {:>4o} {:>10} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10}",
            p.key, p.mode, s.nsems, p.uid, p.gid, p.cuid, p.cgid, s.otime, s.ctime
        );
    }
    out
}

fn msg(namespace: &IpcNamespace) -> String {
    let mut out = String::from(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
    );
    for queue in namespace.msg.all() {
        let (s, id) = (queue.stat(), queue.state.lock().perm.id);
        let p = s.perm;
        let _ = writeln!(
            out,
            "{:>10} {id:>10}  {:>4o}  {:>10} {:>10} {:>5} {:>5} {:>5} {:>5} {:>5} {:>5} {:>10} {:>10} {:>10}",
            p.key,
            p.mode,
            s.cbytes,
            s.qnum,
            s.lspid,
            s.lrpid,
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            s.stime,
            s.rtime,
            s.ctime
        );
    }
    out
}

type Show = Box<dyn Fn(&IpcNamespace) -> String + Send + Sync>;
type Set = Box<dyn Fn(&IpcNamespace, &[u8]) -> vfs::Result<()> + Send + Sync>;

fn limit(kernel: &Arc<Kernel>, dir: Fixed, name: &'static str, show: Show, set: Set) -> Fixed {
    let (for_reads, for_writes) = (kernel.clone(), kernel.clone());
    let get = Box::new(move |caller: &mut dyn Caller| {
        Ok(format!("{}\n", show(&namespace(caller, &for_reads))).into_bytes())
    });
    let take = Box::new(move |caller: &mut dyn Caller, bytes: &[u8]| {
        set(&namespace(caller, &for_writes), bytes.trim_ascii())
    });
    dir.with(name, Node::new(ino_of(4, name.as_bytes()), 0o644, None, Kind::File(get, Some(take))))
}

fn small(field: fn(&IpcNamespace) -> &AtomicI32, most: i32) -> (Show, Set) {
    let show = move |limits: &IpcNamespace| field(limits).load(Ordering::Relaxed).to_string();
    (Box::new(show), Box::new(move |limits, text| ipc::set_limit(field(limits), text, most)))
}

fn large(field: fn(&IpcNamespace) -> &AtomicU64) -> (Show, Set) {
    let show = move |limits: &IpcNamespace| field(limits).load(Ordering::Relaxed).to_string();
    (Box::new(show), Box::new(move |limits, text| ipc::set_limit_u64(field(limits), text)))
}

/// The four fields of `sem`.
fn sem_fields(limits: &Limits) -> [(&AtomicI32, i32); 4] {
    [(&limits.semmsl, 32000), (&limits.semmns, 1_024_000), (&limits.semopm, 4096), (&limits.semmni, IPCMNI)]
}

/// Adds the limits. Each has a bound of ours, since what it limits is memory of the kernel.
pub(super) fn limits(kernel: &Arc<Kernel>, mut dir: Fixed) -> Fixed {
    let rows: [(&'static str, (Show, Set)); 6] = [
        ("shmmax", large(|l| &l.limits.shmmax)),
        ("shmall", large(|l| &l.limits.shmall)),
        ("shmmni", small(|l| &l.limits.shmmni, IPCMNI)),
        ("msgmax", small(|l| &l.limits.msgmax, 1 << 20)),
        ("msgmnb", small(|l| &l.limits.msgmnb, 1 << 24)),
        ("msgmni", small(|l| &l.limits.msgmni, IPCMNI)),
    ];
    for (name, (show, set)) in rows {
        dir = limit(kernel, dir, name, show, set);
    }
    let show: Show = Box::new(|namespace| {
        sem_fields(&namespace.limits).map(|(field, _)| field.load(Ordering::Relaxed).to_string()).join("\t")
    });
    let set: Set = Box::new(|namespace, text| {
        let words = text.split(|b| b.is_ascii_whitespace()).filter(|word| !word.is_empty());
        for (word, (field, most)) in words.zip(sem_fields(&namespace.limits)) {
            ipc::set_limit(field, word, most)?;
        }
        if text.is_empty() { Err(Errno::EINVAL) } else { Ok(()) }
    });
    limit(kernel, dir, "sem", show, set)
}

/// /proc/sys/fs/mqueue.
pub(super) fn mqueue(kernel: &Arc<Kernel>) -> Fixed {
    let rows: [(&'static str, (Show, Set)); 5] = [
        ("queues_max", small(|l| &l.mq.limits.queues_max, 65536)),
        ("msg_max", small(|l| &l.mq.limits.msg_max, 65536)),
        ("msgsize_max", small(|l| &l.mq.limits.msgsize_max, 16 << 20)),
        ("msg_default", small(|l| &l.mq.limits.msg_default, 65536)),
        ("msgsize_default", small(|l| &l.mq.limits.msgsize_default, 16 << 20)),
    ];
    rows.into_iter().fold(Fixed::default(), |dir, (name, (show, set))| limit(kernel, dir, name, show, set))
}
