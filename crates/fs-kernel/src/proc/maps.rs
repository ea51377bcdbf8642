//! /proc/PID/maps, smaps: the host's account of the stub process, with guest names and without the shim.

use std::fmt::Write;

use kernel::Thread;
use linux_abi::Errno;

fn host_text(thread: &Thread, file: &str) -> vfs::Result<String> {
    let mm = thread.mm();
    let pid = mm.space.host_pid();
    if pid == 0 {
        return Err(Errno::ESRCH);
    }
    let text = host::proc_fs::read(&format!("{pid}/{file}"))
        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    // All that is in there is known then.
    mm.settle();
    Ok(text)
}

/// `start-end` at the head of a line of maps.
fn range(line: &str) -> Option<(u64, u64)> {
    let (range, _) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

/// The guest's line for a line of the host; none for what is the shim's.
fn translate(thread: &Thread, line: &str) -> Option<Vec<u8>> {
    let (start, end) = range(line)?;
    let mut fields = line.split_ascii_whitespace();
    let (span, perms, offset, _dev, inode) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let host_name = fields.next().unwrap_or_default();
    let mm = thread.mm();
    if mm.is_reserved(start, end, perms) {
        return None;
    }
    if inode != "0" {
        let files = mm.files.lock();
        let mapping = files.iter().rev().find(|m| m.start <= start && start < m.end);
        if let Some(mapping) = mapping {
            let meta = mapping.inode.metadata().unwrap_or_default();
            let (major, minor) = (linux_abi::fs::major(meta.dev), linux_abi::fs::minor(meta.dev));
            let at = mapping.offset.wrapping_add(start - mapping.start);
            let path = mapping.place.path(&thread.fs().root());
            let head = format!("{span} {perms} {at:08x} {major:02x}:{minor:02x} {} ", meta.ino);
            return Some([format!("{head:<73}").as_bytes(), &escaped(&path, b"\n")].concat());
        }
        // Shared anonymous memory of the host.
        let head = format!("{span} {perms} {offset} 00:01 {inode} ");
        return Some(format!("{head:<73}/dev/zero (deleted)").into_bytes());
    }
    let layout = mm.layout.read().clone();
    let brk = *mm.brk.lock();
    let name = if host_name == "[vdso]" || host_name == "[vvar]" || host_name == "[vvar_vclock]" {
        host_name
    } else if start <= layout.start_stack && layout.start_stack < end {
        "[stack]"
    } else if start < brk.current && end > brk.start && brk.current > brk.start {
        "[heap]"
    } else if host_name.starts_with("[anon:") {
        host_name
    } else {
        ""
    };
    let head = format!("{span} {perms} 00000000 00:00 0 ");
    let line = if name.is_empty() { head } else { format!("{head:<73}{name}") };
    Some(line.into_bytes())
}

/// A path with these bytes in octal, as Linux writes them; others need not be UTF-8.
fn escaped(path: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for byte in path {
        match bytes.contains(byte) {
            true => out.extend(format!("\\{byte:03o}").into_bytes()),
            false => out.push(*byte),
        }
    }
    out
}

/// /proc/PID/maps.
pub(super) fn maps(thread: &Thread) -> vfs::Result<Vec<u8>> {
    let mut out = Vec::new();
    for line in host_text(thread, "maps")?.lines() {
        if let Some(line) = translate(thread, line) {
            out.extend(line);
            out.push(b'\n');
        }
    }
    Ok(out)
}

/// /proc/PID/smaps.
pub(super) fn smaps(thread: &Thread) -> vfs::Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut show = false;
    for line in host_text(thread, "smaps")?.lines() {
        if range(line).is_some() {
            match translate(thread, line) {
                Some(line) => {
                    show = true;
                    out.extend(line);
                    out.push(b'\n');
                }
                None => show = false,
            }
        } else if show {
            out.extend(line.as_bytes());
            out.push(b'\n');
        }
    }
    Ok(out)
}

/// /proc/PID/numa_maps: the host's, with guest names.
pub(super) fn numa_maps(thread: &Thread) -> vfs::Result<Vec<u8>> {
    let mut out = Vec::new();
    for line in host_text(thread, "numa_maps")?.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        let Ok(start) = u64::from_str_radix(address, 16) else { continue };
        let mm = thread.mm();
        if mm.is_reserved(start, start, "---p") {
            continue;
        }
        let layout = mm.layout.read().clone();
        out.extend(address.as_bytes());
        for word in words {
            // The host names its own files, heap and stack.
            if word.starts_with("file=") {
                let files = mm.files.lock();
                if let Some(mapping) = files.iter().rev().find(|m| m.start <= start && start < m.end) {
                    let path = mapping.place.path(&thread.fs().root());
                    out.extend(b" file=");
                    out.extend(escaped(&path, b"\n\t= "));
                }
            } else if word != "heap" && word != "stack" {
                out.extend(format!(" {word}").into_bytes());
            }
        }
        if start == mm.brk.lock().start && start != 0 {
            out.extend(b" heap");
        } else if start <= layout.start_stack && layout.start_stack - start < 8 << 20 {
            out.extend(b" stack");
        }
        out.push(b'\n');
    }
    Ok(out)
}

/// /proc/PID/smaps_rollup: sums over what is shown.
pub(super) fn rollup(thread: &Thread) -> vfs::Result<Vec<u8>> {
    let text = smaps(thread)?;
    let text = String::from_utf8_lossy(&text);
    let mut sums: Vec<(String, u64)> = Vec::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let Some(kib) = rest.trim().strip_suffix(" kB").and_then(|n| n.trim().parse::<u64>().ok()) else {
            continue;
        };
        if matches!(name, "Size" | "KernelPageSize" | "MMUPageSize") {
            continue;
        }
        match sums.iter_mut().find(|(n, _)| n == name) {
            Some((_, sum)) => *sum += kib,
            None => sums.push((name.to_owned(), kib)),
        }
    }
    let mut out =
        String::from("00400000-7ffffffff000 ---p 00000000 00:00 0                          [rollup]\n");
    for (name, sum) in sums {
        let _ = writeln!(out, "{:<16}{sum:>8} kB", name + ":");
    }
    Ok(out.into_bytes())
}
