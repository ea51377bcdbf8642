//! Classic BPF as seccomp(2) takes it: checked once, then run without a way to fail or to go on for ever.

use linux_abi::Errno;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Result;

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if true.
    pub jt: u8,
    /// Instructions to skip if false.
    pub jf: u8,
    /// Constant.
    pub k: u32,
}

/// `AUDIT_ARCH_X86_64`.
pub(super) const ARCH: u32 = 0xc000_003e;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// Number.
    pub nr: u32,
    /// Address behind the instruction.
    pub ip: u64,
    /// Arguments.
    pub args: [u64; 6],
}

/// As the program loads it.
type Words = [u32; 16];

impl Data {
    pub(super) fn words(&self) -> Words {
        let [a, b, c, d, e, f] = self.args;
        let (low, high) = (|v: u64| v as u32, |v: u64| (v >> 32) as u32);
        [
            self.nr,
            ARCH,
            low(self.ip),
            high(self.ip),
            low(a),
            high(a),
            low(b),
            high(b),
            low(c),
            high(c),
            low(d),
            high(d),
            low(e),
            high(e),
            low(f),
            high(f),
        ]
    }
}

/// Most instructions of one program.
const MOST: usize = 4096;
/// Words of memory that a program has.
const MEMORY: usize = 16;
/// Bytes of `struct seccomp_data`.
const DATA_SIZE: u32 = 64;

// Classes, and what is combined with them.
const LD_ABS: u16 = 0x20;
const LD_LEN: u16 = 0x80;
const LDX_LEN: u16 = 0x81;
const LD_IMM: u16 = 0x00;
const LDX_IMM: u16 = 0x01;
const LD_MEM: u16 = 0x60;
const LDX_MEM: u16 = 0x61;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;
const TAX: u16 = 0x07;
const TXA: u16 = 0x87;
const JA: u16 = 0x05;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const BY_X: u16 = 0x08;

/// A program that was checked.
#[derive(Clone, Debug)]
pub struct Program(Vec<Instruction>);

impl Program {
    /// Checks it as Linux does; `EINVAL`.
    pub fn new(code: Vec<Instruction>) -> Result<Program> {
        if code.is_empty() || code.len() > MOST {
            return Err(Errno::EINVAL);
        }
        for (at, i) in code.iter().enumerate() {
            if !valid(i, code.len() - at - 1) {
                return Err(Errno::EINVAL);
            }
        }
        if !matches!(code.last().map(|i| i.code), Some(RET_K | RET_A)) || !memory_is_set(&code) {
            return Err(Errno::EINVAL);
        }
        Ok(Program(code))
    }

    /// How many instructions.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Never.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The verdict.
    pub(super) fn run(&self, data: &Words) -> u32 {
        self.execute(data, None).unwrap_or(super::action::KILL_PROCESS)
    }

    /// The verdict on every call of this number, if the program looks at nothing but number and architecture.
    pub(super) fn constant(&self, nr: u32) -> Option<u32> {
        let mut data = [0; 16];
        data[0] = nr;
        data[1] = ARCH;
        self.execute(&data, Some(2))
    }

    /// Runs it; `None` if it loads a word from index `known` on.
    fn execute(&self, data: &Words, known: Option<usize>) -> Option<u32> {
        let (mut a, mut x, mut pc) = (0u32, 0u32, 0usize);
        let mut memory = [0u32; MEMORY];
        // Jumps only lead forward: it ends.
        while let Some(i) = self.0.get(pc) {
            pc += 1;
            let cell = i.k as usize;
            match i.code {
                LD_ABS => {
                    let word = cell / 4;
                    if known.is_some_and(|known| word >= known) {
                        return None;
                    }
                    a = data.get(word).copied()?;
                }
                LD_LEN => a = DATA_SIZE,
                LDX_LEN => x = DATA_SIZE,
                LD_IMM => a = i.k,
                LDX_IMM => x = i.k,
                LD_MEM => a = memory.get(cell).copied()?,
                LDX_MEM => x = memory.get(cell).copied()?,
                ST => *memory.get_mut(cell)? = a,
                STX => *memory.get_mut(cell)? = x,
                RET_K => return Some(i.k),
                RET_A => return Some(a),
                TAX => x = a,
                TXA => a = x,
                JA => pc = pc.checked_add(cell)?,
                code => {
                    let by = if code & BY_X != 0 { x } else { i.k };
                    if code & 7 == ALU {
                        a = compute(code & 0xf0, a, by)?;
                    } else {
                        let holds = match code & 0xf0 {
                            0x10 => a == by,
                            0x20 => a > by,
                            0x30 => a >= by,
                            _ => a & by != 0,
                        };
                        pc += usize::from(if holds { i.jt } else { i.jf });
                    }
                }
            }
        }
        None
    }
}

/// An operation of the accumulator. Division by zero in X ends the program with 0, as in the kernel.
fn compute(op: u16, a: u32, by: u32) -> Option<u32> {
    Some(match op {
        0x00 => a.wrapping_add(by),
        0x10 => a.wrapping_sub(by),
        0x20 => a.wrapping_mul(by),
        0x30 => a.checked_div(by)?,
        0x40 => a | by,
        0x50 => a & by,
        0x60 => a.wrapping_shl(by),
        0x70 => a.wrapping_shr(by),
        0x80 => a.wrapping_neg(),
        _ => a ^ by,
    })
}

/// Whether an instruction is one, with `left` instructions behind it.
fn valid(i: &Instruction, left: usize) -> bool {
    let k = i.k as usize;
    match i.code {
        LD_ABS => i.k < DATA_SIZE && i.k.is_multiple_of(4),
        LD_LEN | LDX_LEN | LD_IMM | LDX_IMM | RET_K | RET_A | TAX | TXA => true,
        LD_MEM | LDX_MEM | ST | STX => k < MEMORY,
        JA => k < left,
        // add sub mul div or and lsh rsh neg xor, by a constant or by X.
        code if code & 7 == ALU && code & 0xff == code => match code & 0xf0 {
            0x30 if code & BY_X == 0 => i.k != 0,
            0x60 | 0x70 if code & BY_X == 0 => i.k < 32,
            0x80 => code & BY_X == 0,
            0x90 | 0xb0.. => false,
            _ => true,
        },
        code if code & 7 == JMP && code & 0xff == code => {
            matches!(code & 0xf0, 0x10 | 0x20 | 0x30 | 0x40)
                && usize::from(i.jt) < left
                && usize::from(i.jf) < left
        }
        _ => false,
    }
}

/// Whether every load of memory comes after a store on all ways to it.
fn memory_is_set(code: &[Instruction]) -> bool {
    let mut known = vec![u16::MAX; code.len()];
    let mut set = 0u16;
    for (at, i) in code.iter().enumerate() {
        set &= known.get(at).copied().unwrap_or(0);
        let mut jump = |to: usize, set: u16| {
            if let Some(mask) = known.get_mut(at + 1 + to) {
                *mask &= set;
            }
        };
        match i.code {
            ST | STX => set |= 1 << (i.k & 15),
            LD_MEM | LDX_MEM if set & (1 << (i.k & 15)) == 0 => return false,
            JA => {
                jump(i.k as usize, set);
                set = u16::MAX;
            }
            code if code & 7 == JMP => {
                jump(usize::from(i.jt), set);
                jump(usize::from(i.jf), set);
                set = u16::MAX;
            }
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(code: &[(u16, u8, u8, u32)]) -> Result<Program> {
        Program::new(code.iter().map(|&(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect())
    }

    #[test]
    fn refuses_what_linux_refuses() {
        let allow = (RET_K, 0, 0, 0x7fff_0000);
        for bad in [
            vec![],
            vec![(LD_IMM, 0, 0, 0)],
            vec![(LD_ABS, 0, 0, 2), allow],
            vec![(LD_ABS, 0, 0, 64), allow],
            vec![(0x28, 0, 0, 0), allow],
            vec![(0x34, 0, 0, 0), allow],
            vec![(0x64, 0, 0, 32), allow],
            vec![(JA, 0, 0, 1), allow],
            vec![(JA, 0, 0, u32::MAX), allow],
            vec![(0x15, 1, 0, 0), allow],
            vec![(LD_MEM, 0, 0, 0), allow],
            vec![(ST, 0, 0, 16), allow],
            vec![(0x15, 0, 1, 0), (ST, 0, 0, 3), (LD_MEM, 0, 0, 3), allow],
            vec![(0xffff, 0, 0, 0), allow],
        ] {
            assert!(program(&bad).is_err(), "{bad:?}");
        }
        assert!(program(&[(ST, 0, 0, 3), (0x15, 0, 0, 0), (LD_MEM, 0, 0, 3), allow]).is_ok());
    }

    #[test]
    fn runs_and_knows_what_is_constant() {
        // getppid: ERRNO by the first argument, all else allowed.
        let filter = program(&[
            (LD_ABS, 0, 0, 0),
            (0x15, 1, 0, 110),
            (RET_K, 0, 0, 0x7fff_0000),
            (LD_ABS, 0, 0, 16),
            (0x44, 0, 0, 0x5_0000),
            (RET_A, 0, 0, 0),
        ])
        .unwrap();
        assert_eq!(filter.constant(1), Some(0x7fff_0000));
        assert_eq!(filter.constant(110), None);
        let data = Data { nr: 110, ip: 0, args: [7, 0, 0, 0, 0, 0] };
        assert_eq!(filter.run(&data.words()), 0x5_0007);
    }

    #[test]
    fn division_by_zero_kills() {
        let filter = program(&[(LDX_IMM, 0, 0, 0), (0x3c, 0, 0, 0), (RET_K, 0, 0, 0x7fff_0000)]).unwrap();
        assert_eq!(filter.run(&[0; 16]), super::super::action::KILL_PROCESS);
    }
}
