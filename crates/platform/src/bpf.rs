//! Classic BPF as seccomp(2) takes it: instructions, blocks of them, and what a program says of a call.

use slot::layout::{PROTECTED_HI, PROTECTED_HI_END, PROTECTED_LOW};

/// One instruction of classic BPF: `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jt: u8,
    /// Instructions to skip if false.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

pub(crate) const ALLOW: u32 = 0x7fff_0000;
pub(crate) const NOTIFY: u32 = 0x7fc0_0000;
pub(crate) const TRAP: u32 = 0x0003_0000;

pub(crate) const LOAD: u16 = 0x20;
pub(crate) const RETURN: u16 = 0x06;
pub(crate) const JEQ: u16 = 0x15;
pub(crate) const JGT: u16 = 0x25;
pub(crate) const JGE: u16 = 0x35;
pub(crate) const JSET: u16 = 0x45;
pub(crate) const AND: u16 = 0x54;
pub(crate) const ADD_K: u16 = 0x04;
pub(crate) const ADD_X: u16 = 0x0c;
pub(crate) const TO_X: u16 = 0x07;

pub(crate) const OFFSET_NR: u32 = 0;
pub(crate) const OFFSET_ARCH: u32 = 4;
pub(crate) const OFFSET_IP: u32 = 8;
pub(crate) const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
pub(crate) const X32_BIT: u32 = 0x4000_0000;

pub(crate) const fn low(arg: u32) -> u32 {
    16 + arg * 8
}
pub(crate) const fn high(arg: u32) -> u32 {
    20 + arg * 8
}

/// Instructions under construction.
pub(crate) struct Block(pub Vec<Instruction>);

impl Block {
    pub(crate) fn op(&mut self, code: u16, k: u32) -> &mut Block {
        self.0.push(Instruction { code, jt: 0, jf: 0, k });
        self
    }
    /// Returns `verdict` if the test holds, else goes on.
    pub(crate) fn ret_if(&mut self, test: u16, k: u32, verdict: u32) -> &mut Block {
        self.0.push(Instruction { code: test, jt: 0, jf: 1, k });
        self.op(RETURN, verdict)
    }
    /// Returns `verdict` unless the test holds.
    pub(crate) fn ret_unless(&mut self, test: u16, k: u32, verdict: u32) -> &mut Block {
        self.0.push(Instruction { code: test, jt: 1, jf: 0, k });
        self.op(RETURN, verdict)
    }
    /// Leaves a block out if the test holds.
    pub(crate) fn skip_if(&mut self, test: u16, k: u32, block: &Block) {
        self.0.push(Instruction { code: test, jt: length(block), jf: 0, k });
        self.0.extend_from_slice(&block.0);
    }
    /// Leaves a block out unless the test holds.
    pub(crate) fn skip_unless(&mut self, test: u16, k: u32, block: &Block) {
        self.0.push(Instruction { code: test, jt: 0, jf: length(block), k });
        self.0.extend_from_slice(&block.0);
    }
    /// Traps unless the bytes from argument `addr`, as many as argument `len`, avoid the protected ranges.
    pub(crate) fn check_range(&mut self, addr: u32, len: u32) -> &mut Block {
        // A length of 2^47 or more is no range of user space.
        self.op(LOAD, high(len)).ret_if(JGE, 0x8000, TRAP);
        self.op(TO_X, 0).op(LOAD, high(addr)).ret_if(JGE, 0x8000, TRAP);
        let low_check = [
            // High half 0: not below the end of the jump table.
            Instruction { code: JEQ, jt: 0, jf: 3, k: 0 },
            Instruction { code: LOAD, jt: 0, jf: 0, k: low(addr) },
            Instruction { code: JGE, jt: 1, jf: 0, k: PROTECTED_LOW as u32 },
            Instruction { code: RETURN, jt: 0, jf: 0, k: TRAP },
        ];
        self.0.extend(low_check);
        // At or above the end of the protected range all is well; else the end must be below its start:
        // high(addr) + high(len) + 1 is above the high half of the end.
        let above = Instruction { code: JGE, jt: 4, jf: 0, k: PROTECTED_HI_END };
        self.op(LOAD, high(addr));
        self.0.push(above);
        self.op(ADD_X, 0).op(ADD_K, 1).ret_if(JGT, PROTECTED_HI, TRAP);
        self
    }
}

/// Of a block that is jumped over: all are short.
pub(crate) fn length(block: &Block) -> u8 {
    u8::try_from(block.0.len()).unwrap_or(u8::MAX)
}

/// An array of `struct sock_filter`.
pub(crate) fn to_bytes(program: &[Instruction]) -> Vec<u8> {
    program
        .iter()
        .flat_map(|i| {
            let k = i.k.to_ne_bytes();
            let code = i.code.to_ne_bytes();
            [code[0], code[1], i.jt, i.jf, k[0], k[1], k[2], k[3]]
        })
        .collect()
}

/// A call as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// Audit architecture.
    pub arch: u32,
    /// Number.
    pub number: u32,
    /// Address behind the instruction.
    pub ip: u64,
    /// Arguments.
    pub args: [u64; 6],
}

impl Call {
    /// The word at an offset of `struct seccomp_data`; 0 outside of it.
    fn word(&self, offset: u32) -> u32 {
        let half = |value: u64, high: bool| if high { (value >> 32) as u32 } else { value as u32 };
        match offset {
            OFFSET_NR => self.number,
            OFFSET_ARCH => self.arch,
            OFFSET_IP | 12 => half(self.ip, offset != OFFSET_IP),
            _ => {
                let arg = offset.checked_sub(16).and_then(|at| self.args.get(at as usize / 8));
                arg.map_or(0, |value| half(*value, !offset.is_multiple_of(8)))
            }
        }
    }
}

/// What a program of ours says of a call, as the host would run it. Jumps go forwards only.
pub(crate) fn run(program: &[Instruction], call: &Call) -> u32 {
    let (mut pc, mut a, mut x) = (0usize, 0u32, 0u32);
    while let Some(i) = program.get(pc) {
        pc += 1;
        let mut jump = |taken: bool| pc += usize::from(if taken { i.jt } else { i.jf });
        match i.code {
            LOAD => a = call.word(i.k),
            RETURN => return i.k,
            JEQ => jump(a == i.k),
            JGT => jump(a > i.k),
            JGE => jump(a >= i.k),
            JSET => jump(a & i.k != 0),
            AND => a &= i.k,
            ADD_K => a = a.wrapping_add(i.k),
            ADD_X => a = a.wrapping_add(x),
            TO_X => x = a,
            _ => return TRAP,
        }
    }
    TRAP
}
