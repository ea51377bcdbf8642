//! The cases, one file per subject.

use crate::harness::Case;

mod acl;
mod address_form;
mod aio;
mod aslr;
mod attack;
mod attack_long;
mod attack_memory;
mod core_dump;
mod credentials;
mod directory;
mod double_fetch;
mod epoll;
mod eventfd;
mod exec;
mod fd;
mod file;
mod futex_pi;
mod guard;
mod hidepid;
mod inet;
mod inotify;
mod job;
mod kept_reads;
mod limits;
mod limits_memory;
mod machine;
mod mapped_files;
mod memory;
mod memory_file;
mod mount;
mod mqueue;
mod names;
mod names_attack;
mod names_not_directory;
mod netlink;
mod packet;
mod packet_ring;
mod page_cache;
mod pipe;
mod poll;
mod posting;
mod posting_attack;
mod posting_files;
mod posting_logs;
mod posting_parts;
mod prctl;
mod proc_names;
mod process;
mod ptrace;
mod ptrace_native;
mod pty;
mod rewrite;
mod seccomp;
mod seccomp_native;
mod seccomp_notify;
mod seccomp_notify_files;
mod seccomp_notify_wait;
mod seccomp_wait;
mod sigio;
mod signal;
mod signal_asked;
mod signal_frame;
mod signal_wait;
mod socket_filter;
mod socket_options;
mod statfs;
mod sysv_msg;
mod sysv_sem;
mod sysv_shm;
mod tcp;
mod tcp_data;
mod tcp_hold;
mod tcp_ports;
mod text_busy;
mod thread;
mod thread_exec;
mod time;
mod timer;
mod udp;
mod udp_control;
mod unix_options;
mod unix_socket;
mod wait;
mod xattr;
mod zerocopy;

/// Every case, subject by subject.
pub(crate) fn all() -> impl Iterator<Item = Case> {
    let subjects: [&[Case]; _] = [
        acl::CASES,
        address_form::CASES,
        aio::CASES,
        aslr::CASES,
        attack::CASES,
        attack_long::CASES,
        attack_memory::CASES,
        core_dump::CASES,
        credentials::CASES,
        directory::CASES,
        double_fetch::CASES,
        epoll::CASES,
        eventfd::CASES,
        exec::CASES,
        fd::CASES,
        file::CASES,
        futex_pi::CASES,
        guard::CASES,
        hidepid::CASES,
        inet::CASES,
        inotify::CASES,
        job::CASES,
        kept_reads::CASES,
        limits::CASES,
        limits_memory::CASES,
        machine::CASES,
        mapped_files::CASES,
        memory::CASES,
        memory_file::CASES,
        mount::CASES,
        mqueue::CASES,
        names::CASES,
        names_attack::CASES,
        names_not_directory::CASES,
        netlink::CASES,
        packet::CASES,
        packet_ring::CASES,
        page_cache::CASES,
        pipe::CASES,
        poll::CASES,
        posting::CASES,
        posting_attack::CASES,
        posting_files::CASES,
        posting_logs::CASES,
        posting_parts::CASES,
        prctl::CASES,
        process::CASES,
        proc_names::CASES,
        ptrace::CASES,
        ptrace_native::CASES,
        pty::CASES,
        rewrite::CASES,
        seccomp::CASES,
        seccomp_native::CASES,
        seccomp_notify::CASES,
        seccomp_notify_files::CASES,
        seccomp_notify_wait::CASES,
        seccomp_wait::CASES,
        sigio::CASES,
        signal::CASES,
        signal_asked::CASES,
        signal_frame::CASES,
        signal_wait::CASES,
        socket_filter::CASES,
        socket_options::CASES,
        statfs::CASES,
        sysv_msg::CASES,
        sysv_sem::CASES,
        sysv_shm::CASES,
        tcp::CASES,
        tcp_data::CASES,
        tcp_hold::CASES,
        tcp_ports::CASES,
        text_busy::CASES,
        thread::CASES,
        thread_exec::CASES,
        time::CASES,
        timer::CASES,
        udp::CASES,
        udp_control::CASES,
        unix_options::CASES,
        unix_socket::CASES,
        wait::CASES,
        xattr::CASES,
        zerocopy::CASES,
    ];
    subjects.into_iter().flatten().copied()
}
