//! Patching of system call sites: a site that traps often jumps into the shim instead.
//!
//! Two ways. Where padding lies within reach of the site, `syscall` becomes a short jump into it and the padding a
//! jump into the shim, or one to more padding: every address that was an instruction's stays one. Else `mov eax, nr; syscall`
//! becomes that jump; a thread that is between the two then meets an invalid instruction, which the shim
//! takes for the call. Threads that run meanwhile meet a breakpoint, which the shim has them run again.
//!
//! It is a matter of speed alone: what goes wrong here harms the guest that put odd code there, only it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use linux_abi::Errno;
use linux_abi::sysno::nr;
use parking_lot::Mutex;
use slot::layout::{
    PROTECTED_HI, PROTECTED_HI_END, PROTECTED_LOW, SLOT_VA, TABLE_OFFSET, TABLE_SIZE, TABLE_VA,
    TRAMPOLINE_OFFSET, TRAMPOLINE_SIZE, TRAMPOLINE_STRIDE, TRAMPOLINE_VA,
};

use slot::may_run_natively;

use crate::instructions::{find_far_padding, find_padding, find_padding_before};
use crate::process::{ProcessCore, read_process, shared_place};
use crate::slots::Slots;

/// Traps of a site that make it worth a patch.
const HITS: u8 = 3;
/// Sites counted per address space.
const SITES: usize = 1024;
/// Forks of forks that are patched, without an exec in between.
const GENERATIONS: usize = 32;
/// A jump through the table.
const JUMP: usize = 7;
/// A jump to code of the same library.
const NEAR_JUMP: usize = 5;
/// Bytes of code in which padding for a longer jump is looked for.
const FAR: usize = 8192;
/// Reach of a short jump.
const REACH: usize = 127;
/// Bytes before a site in which padding and the start of code before that are looked for.
const BEHIND: usize = REACH + 64;
/// In `hits`: nothing more to be done.
const DONE: u8 = u8::MAX;

/// Sites of one address space.
#[derive(Default)]
pub(crate) struct Sites {
    hits: HashMap<u64, u8>,
    /// Where its patched sites lead.
    own: Option<Arc<Used>>,
    /// Where those lead that it was forked with.
    inherited: Vec<Arc<Used>>,
}

impl Sites {
    /// Those of a fork of it. With other threads running, more may be patched before the host forks.
    pub(crate) fn fork(&mut self, patcher: &Patcher, alone: bool) -> Sites {
        let mut inherited = self.inherited.clone();
        let own = if alone { self.own.clone() } else { self.used(patcher) };
        inherited.extend(own);
        Sites { inherited, ..Sites::default() }
    }

    /// Where new trampolines of this space are counted; none if it descends from so many that it gets none.
    fn used(&mut self, patcher: &Patcher) -> Option<Arc<Used>> {
        if self.inherited.len() >= GENERATIONS {
            return None;
        }
        let new = || Arc::new(Used { all: Arc::clone(&patcher.trampolines), keys: Mutex::default() });
        Some(Arc::clone(self.own.get_or_insert_with(new)))
    }
}

/// What a trampoline is for: its return address, and the number if it has to load it.
type Key = (u64, Option<u32>);

/// The trampolines of the sandbox. Libraries lie elsewhere in each program, so that they must be used again.
#[derive(Default)]
struct Trampolines {
    /// The index of each, and how many count it as used.
    known: HashMap<Key, (u64, u32)>,
    /// Indexes that nobody uses any more. They rest, as a process that is being killed may still run.
    free: VecDeque<u64>,
    /// The lowest index that was never used.
    next: u64,
}

/// Trampolines that an address space and all forks of it need.
struct Used {
    all: Arc<Mutex<Trampolines>>,
    keys: Mutex<HashSet<Key>>,
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        for key in self.keys.get_mut().drain() {
            let Some((index, users)) = all.known.get_mut(&key) else { continue };
            *users -= 1;
            if *users == 0 {
                let index = *index;
                all.known.remove(&key);
                all.free.push_back(index);
            }
        }
    }
}

/// Sites of the sandbox that were patched.
pub(crate) struct Patcher {
    on: AtomicBool,
    proc: Option<Arc<OwnedFd>>,
    /// Address of the shim's entry.
    entry: u64,
    trampolines: Arc<Mutex<Trampolines>>,
    /// Sites patched.
    pub(crate) patched: AtomicU64,
}

/// Of a site: its bytes, and what to make of them.
struct Plan {
    /// Writes of what nobody runs yet.
    first: Vec<(u64, Vec<u8>)>,
    /// Where the site's new bytes go.
    at: u64,
    bytes: Vec<u8>,
}

impl Patcher {
    pub(crate) fn new(on: bool, proc: Option<Arc<OwnedFd>>, entry: u64) -> Patcher {
        Patcher {
            on: AtomicBool::new(on),
            proc,
            entry,
            trampolines: Arc::default(),
            patched: AtomicU64::new(0),
        }
    }

    /// A call trapped with its instruction at `site`.
    pub(crate) fn hit(&self, slots: &Slots, process: &ProcessCore, site: u64, number: u64) {
        if !self.on.load(Ordering::Relaxed) {
            return;
        }
        {
            let mut sites = process.space.sites.lock();
            if sites.hits.len() >= SITES && !sites.hits.contains_key(&site) {
                sites.hits.clear();
            }
            let hits = sites.hits.entry(site).or_insert(0);
            if *hits == DONE {
                return;
            }
            *hits += 1;
            if *hits < HITS {
                return;
            }
            *hits = DONE;
        }
        // Unwinders know a signal frame by the bytes of its rt_sigreturn.
        if number == u64::from(nr::rt_sigreturn) {
            return;
        }
        if self.patch(slots, process, site, number).is_some() {
            self.patched.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn patch(&self, slots: &Slots, process: &ProcessCore, site: u64, wanted: u64) -> Option<()> {
        let below = PROTECTED_LOW + 16..u64::from(PROTECTED_HI) << 32;
        let above = (u64::from(PROTECTED_HI_END) << 32) + 16..0x7fff_ffff_0000;
        if !below.contains(&site) && !above.contains(&site) {
            return None;
        }
        let used = process.space.sites.lock().used(self)?;
        // One at a time, with the lock of the table: what is padding now may be another site's way a moment later.
        let mut known = self.trampolines.lock();
        let mut behind = [0; BEHIND];
        let mut code = [0; 2 + REACH + 32];
        let before = code_before(process, site, &mut behind)?;
        let n = read_process(process, site, &mut code).ok()?;
        let code = code.get(..n)?;
        if !code.starts_with(&[0x0f, 0x05]) {
            return None;
        }
        let back = site + 2;
        let number = match *before.last_chunk::<6>()? {
            [rex, 0xb8, imm @ ..] if !(0x40..0x50).contains(&rex) => Some(u32::from_le_bytes(imm)),
            // A site that serves several numbers, as that of syscall(3) or Go's; or `xor eax, eax` for read(2).
            _ => None,
        };
        // One that always makes a native call is best left as it is.
        if number.is_some_and(|number| u64::from(number) != wanted || may_run_natively(wanted)) {
            return None;
        }
        let after = code.get(2..)?;
        let plan = if let Some((hop, offset)) = padding_near(before, after, back, JUMP) {
            let jump = self.jump(slots, &mut known, &used, (back, None))?;
            Plan { first: vec![(hop, jump.to_vec())], at: site, bytes: vec![0xeb, offset] }
        } else if let Some(number) = number {
            let jump = self.jump(slots, &mut known, &used, (back, Some(number)))?;
            Plan { first: Vec::new(), at: site - 5, bytes: jump.to_vec() }
        } else {
            let (hop, offset) = padding_near(before, after, back, NEAR_JUMP)?;
            let far = far_padding(process, back)?;
            let way = i32::try_from(far.wrapping_sub(hop + NEAR_JUMP as u64).cast_signed()).ok()?;
            let jump = self.jump(slots, &mut known, &used, (back, None))?;
            let mut near = vec![0xe9];
            near.extend(way.to_le_bytes());
            Plan { first: vec![(far, jump.to_vec()), (hop, near)], at: site, bytes: vec![0xeb, offset] }
        };
        let writes = plan.first.iter().map(|(at, bytes)| (*at, bytes.len()));
        if writes.chain([(plan.at, plan.bytes.len())]).any(|(at, len)| self.may_be_shared(process, at, len)) {
            return None;
        }
        let memory = self.open(process.pid())?;
        for (at, bytes) in &plan.first {
            memory.write_all_at(bytes, *at).ok()?;
        }
        if process.space.threads() <= 1 {
            // Its only thread waits for us.
            return memory.write_all_at(&plan.bytes, plan.at).ok();
        }
        // In one cache line, other threads see the writes in their order.
        if plan.at / 64 != (plan.at + plan.bytes.len() as u64 - 1) / 64 {
            return None;
        }
        let control = slots.control();
        control.patch_site.store(plan.at, Ordering::SeqCst);
        let done = breakpoint_first(&memory, &plan);
        control.patch_site.store(0, Ordering::SeqCst);
        done
    }

    /// The jump to the trampoline for a return address.
    fn jump(&self, slots: &Slots, all: &mut Trampolines, used: &Used, key: Key) -> Option<[u8; JUMP]> {
        let index = match all.known.get(&key) {
            Some((index, _)) => *index,
            None => {
                let index = all.free.front().copied().unwrap_or(all.next);
                if (index + 1) * 8 > TABLE_SIZE || (index + 1) * TRAMPOLINE_STRIDE > TRAMPOLINE_SIZE {
                    return None;
                }
                let code = self.trampoline(key.0, key.1);
                slots.write_control(TRAMPOLINE_OFFSET + index * TRAMPOLINE_STRIDE, &code)?;
                let target = TRAMPOLINE_VA + index * TRAMPOLINE_STRIDE;
                slots.write_control(TABLE_OFFSET + index * 8, &target.to_le_bytes())?;
                if all.free.pop_front().is_none() {
                    all.next += 1;
                }
                all.known.insert(key, (index, 0));
                index
            }
        };
        if used.keys.lock().insert(key)
            && let Some((_, users)) = all.known.get_mut(&key)
        {
            *users += 1;
        }
        let [a, b, c, d] = u32::try_from(TABLE_VA + index * 8).ok()?.to_le_bytes();
        // jmp [abs32]
        Some([0xff, 0x24, 0x25, a, b, c, d])
    }

    /// Loads the number, if asked for, and goes to the shim's entry. The call in it is for a thread whose %gs is not
    /// the shim's, and for calls that run natively, see `at_site` in `shim/entry.rs`. Flags stay as they are.
    fn trampoline(&self, back: u64, nr: Option<u32>) -> Vec<u8> {
        let mut code = Vec::with_capacity(TRAMPOLINE_STRIDE as usize);
        match nr {
            // mov eax, nr
            Some(nr) => {
                code.push(0xb8);
                code.extend(nr.to_le_bytes());
            }
            // A nop as long.
            None => code.extend([0x0f, 0x1f, 0x44, 0x00, 0x00]),
        }
        // rdgsbase r11; bswap r11: the high half of the base is in r11d, backwards.
        code.extend([0xf3, 0x49, 0x0f, 0xae, 0xcb, 0x49, 0x0f, 0xcb]);
        // lea ecx, [r11 - that of the slots]; jrcxz over the next two
        let slots = ((SLOT_VA >> 32) as u32).swap_bytes();
        code.extend([0x41, 0x8d, 0x8b]);
        code.extend(slots.wrapping_neg().to_le_bytes());
        code.extend([0xe3, 0x08]);
        // syscall; jmp [back]
        code.extend([0x0f, 0x05, 0xff, 0x25, 2, 0, 0, 0]);
        // mov rcx, back; jmp [entry]
        code.extend([0x48, 0xb9]);
        code.extend(back.to_le_bytes());
        // lea r11, [this trampoline]; jmp [entry]
        code.extend([0x4c, 0x8d, 0x1d]);
        code.extend((-(code.len() as i32) - 4).to_le_bytes());
        code.extend([0xff, 0x25, 0, 0, 0, 0]);
        code.extend(self.entry.to_le_bytes());
        code
    }

    /// Whether what is written there may reach a file or another process. Of memory that the guest must not write to,
    /// the host lets us write to private pages alone. What it may write to itself is seldom code.
    fn may_be_shared(&self, process: &ProcessCore, at: u64, len: usize) -> bool {
        let pid = process.pid();
        [at, at + len as u64 - 1].into_iter().any(|at| {
            let mut byte = [0];
            if pid == 0 || read_process(process, at, &mut byte) != Ok(1) {
                return true;
            }
            // It stays as it is.
            let writable = host::process::write_memory(pid, at, &byte) != Err(Errno::EFAULT);
            let is_shared = |maps: String| maps.lines().find_map(|line| shared_place(line, at)).is_some();
            writable && host::proc_fs::mappings(self.proc.as_deref(), pid).map_or(true, is_shared)
        })
    }

    /// The process's memory, which lets read-only pages be written.
    fn open(&self, pid: i32) -> Option<File> {
        if pid == 0 {
            return None;
        }
        match host::proc_fs::open_memory(self.proc.as_deref(), pid) {
            Ok(file) => Some(file),
            Err(error) => {
                // A process that just ended has none, and descriptors may be scarce for a while.
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    tracing::info!("system call sites are not patched: {error}");
                    self.on.store(false, Ordering::Relaxed);
                }
                None
            }
        }
    }
}

/// The code before a site, as much as can be read of it.
fn code_before<'a>(process: &ProcessCore, site: u64, buf: &'a mut [u8; BEHIND]) -> Option<&'a [u8]> {
    // Up to the start of its page, if the one before is not there.
    let len = usize::try_from(site % 4096).ok()?.max(8);
    let lens = [BEHIND, len.min(BEHIND)];
    let len = lens.into_iter().find(|len| {
        let Some(buf) = buf.get_mut(BEHIND - len..) else { return false };
        read_process(process, site - *len as u64, buf).is_ok_and(|n| n == *len)
    })?;
    buf.get(BEHIND - len..)
}

/// Padding of `room` bytes that a short jump at a site reaches: its address, and the jump's operand.
fn padding_near(before: &[u8], after: &[u8], back: u64, room: usize) -> Option<(u64, u8)> {
    let offset = match find_padding(after, back, room, REACH) {
        Some(offset) => i8::try_from(offset).ok()?,
        None => {
            let distance = find_padding_before(before, back - 2, room)? + 2;
            i8::try_from(distance).ok()?.checked_neg()?
        }
    };
    Some((back.wrapping_add_signed(offset.into()), offset.cast_unsigned()))
}

/// The address of padding that a jump from within reach of a site can go to.
fn far_padding(process: &ProcessCore, back: u64) -> Option<u64> {
    let mut code = vec![0; FAR];
    // What lies closer, other calls there may need.
    let start = back + REACH as u64;
    let n = read_process(process, start, &mut code).ok()?;
    find_far_padding(code.get(..n)?, start, JUMP).map(|offset| start + offset as u64)
}

impl crate::GuestThread {
    /// Whether the thread stands at a system call, patched or not.
    pub fn is_at_call(&mut self) -> bool {
        let rip = self.regs().rip;
        is_call(&self.core.process, rip)
    }
}

fn is_call(process: &ProcessCore, rip: u64) -> bool {
    let (mut code, mut jump) = ([0; 2], [0; JUMP]);
    match read_process(process, rip, &mut code) {
        Ok(2) if code == [0x0f, 0x05] => true,
        Ok(2) if code[0] == 0xeb => {
            let mut target = rip.wrapping_add(2).wrapping_add_signed(i64::from(code[1].cast_signed()));
            let mut read = read_process(process, target, &mut jump);
            if let (Ok(JUMP), [0xe9, way @ .., _, _]) = (&read, jump) {
                let way = i64::from(i32::from_le_bytes(way));
                target = target.wrapping_add(NEAR_JUMP as u64).wrapping_add_signed(way);
                read = read_process(process, target, &mut jump);
            }
            let (Ok(JUMP), [0xff, 0x24, 0x25, table @ ..]) = (read, jump) else { return false };
            (TABLE_VA..TABLE_VA + TABLE_SIZE).contains(&u32::from_le_bytes(table).into())
        }
        _ => false,
    }
}

/// Breakpoint, tail, head. The tail from its end that is the invalid instruction, see `shim/signal.rs`.
fn breakpoint_first(memory: &File, plan: &Plan) -> Option<()> {
    let (head, tail) = plan.bytes.split_first()?;
    memory.write_all_at(&[0xcc], plan.at).ok()?;
    let mut done = Some(());
    let split = tail.len().saturating_sub(2);
    for i in (split..tail.len()).chain(0..split) {
        done = done.and(memory.write_all_at(tail.get(i..=i)?, plan.at + 1 + i as u64).ok());
    }
    // Whatever happened, the breakpoint must go.
    memory.write_all_at(&[*head], plan.at).ok()?;
    done
}

#[cfg(test)]
mod tests {
    use super::{Patcher, Sites, TABLE_SIZE};
    use crate::slots::Slots;

    #[test]
    fn trampolines_are_used_again() {
        let slots = Slots::new().unwrap();
        let patcher = Patcher::new(true, None, 0);
        let jump = |sites: &mut Sites, back| {
            let used = sites.used(&patcher)?;
            let mut all = patcher.trampolines.lock();
            patcher.jump(&slots, &mut all, &used, (back, None))
        };
        let mut first = Sites::default();
        let kept = jump(&mut first, 1).unwrap();
        // A fork needs it after the end of its parent.
        let child = first.fork(&patcher, true);
        drop(first);
        // Programs that come and go, each with its own addresses.
        for program in 0..3 * TABLE_SIZE / 8 {
            let mut sites = Sites::default();
            assert_ne!(jump(&mut sites, 2 + program), Some(kept));
            assert!(jump(&mut sites, 2 + program).is_some());
        }
        let mut other = Sites::default();
        assert_eq!(jump(&mut other, 1), Some(kept));
        drop((child, other));
        assert!(patcher.trampolines.lock().known.is_empty());
        // As many as there are, and no more.
        let mut all = Sites::default();
        assert_eq!(
            (0..TABLE_SIZE).filter(|back| jump(&mut all, *back).is_some()).count() as u64,
            TABLE_SIZE / 8
        );
    }

    #[test]
    fn a_long_line_of_forks_is_not_patched() {
        let patcher = Patcher::new(true, None, 0);
        let mut sites = Sites::default();
        for _ in 0..100 {
            sites = sites.fork(&patcher, false);
        }
        assert!(sites.inherited.len() == super::GENERATIONS && sites.used(&patcher).is_none());
    }
}
