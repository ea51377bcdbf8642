//! Classic BPF over packets, as socket(7) attaches it: checked once, then run without a way to fail or to go on for
//! ever. The kernel's documentation has it in networking/filter.
#![forbid(unsafe_code)]

use linux_abi::Errno;

/// Most instructions of a program.
pub const MOST: usize = 4096;
/// Words of memory that a program has.
const MEMORY: usize = 16;
/// Bytes of `struct sock_filter`.
pub const INSTRUCTION: usize = 8;

/// Offsets from here on are no bytes of the packet but [`Packet::about`] it: `SKF_AD_OFF`.
const ABOUT: u32 = -0x1000_i32 as u32;
/// `SKF_NET_OFF`, `SKF_LL_OFF`: bytes of the network's header, and of the link's.
const NETWORK: u32 = -0x10_0000_i32 as u32;
const LINK: u32 = -0x20_0000_i32 as u32;
/// The last of the `SKF_AD_*`.
const LAST_ABOUT: u32 = 60;
/// `SKF_AD_ALU_XOR_X`: A becomes A ^ X.
const ABOUT_XOR: u32 = 40;

/// What a program looks at.
pub trait Packet {
    /// The bytes from its protocol's header on.
    fn bytes(&self) -> &[u8];
    /// The header of the network's protocol and what follows.
    fn network(&self) -> &[u8];
    /// The header of the link and what follows; none for most sockets.
    fn link(&self) -> Option<&[u8]> {
        None
    }
    /// `SKF_AD_*`; 0 for what there is nothing of.
    fn about(&self, what: u32) -> u32;
}

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of struct sock_filter")]
pub struct Instruction {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// A program that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program(Vec<Instruction>);

// Classes with what is combined with them.
const LD_IMM: u16 = 0x00;
const LD_ABS_W: u16 = 0x20;
const LD_ABS_H: u16 = 0x28;
const LD_ABS_B: u16 = 0x30;
const LD_IND_W: u16 = 0x40;
const LD_IND_H: u16 = 0x48;
const LD_IND_B: u16 = 0x50;
const LD_MEM: u16 = 0x60;
const LD_LEN: u16 = 0x80;
const LDX_IMM: u16 = 0x01;
const LDX_MEM: u16 = 0x61;
const LDX_LEN: u16 = 0x81;
/// X becomes four times the low half of a byte: the length of an IPv4 header.
const LDX_MSH: u16 = 0xb1;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const JA: u16 = 0x05;
const RET_K: u16 = 0x06;
const RET_A: u16 = 0x16;
const TAX: u16 = 0x07;
const TXA: u16 = 0x87;
const ALU: u16 = 0x04;
const JMP: u16 = 0x05;
const BY_X: u16 = 0x08;

impl Program {
    /// Checks an array of `struct sock_filter` as Linux does; `EINVAL`.
    pub fn new(bytes: &[u8]) -> Result<Program, Errno> {
        let (all, rest) = bytes.as_chunks::<INSTRUCTION>();
        if all.is_empty() || all.len() > MOST || !rest.is_empty() {
            return Err(Errno::EINVAL);
        }
        let code: Vec<Instruction> = (all.iter())
            .map(|[c0, c1, jt, jf, k @ ..]| Instruction {
                code: u16::from_ne_bytes([*c0, *c1]),
                jt: *jt,
                jf: *jf,
                k: u32::from_ne_bytes(*k),
            })
            .collect();
        let valid = code.iter().enumerate().all(|(at, i)| valid(i, code.len() - at - 1));
        let ends = matches!(code.last().map(|i| i.code), Some(RET_K | RET_A));
        if valid && ends && memory_is_set(&code) { Ok(Program(code)) } else { Err(Errno::EINVAL) }
    }

    /// The array it was made of.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = |i: &Instruction| {
            let mut out = i.code.to_ne_bytes().to_vec();
            out.extend_from_slice(&[i.jt, i.jf]);
            out.extend_from_slice(&i.k.to_ne_bytes());
            out
        };
        self.0.iter().flat_map(bytes).collect()
    }

    /// How many bytes of the packet stay; 0 to throw it away, as for a load from beyond its end.
    pub fn run(&self, packet: &dyn Packet) -> u32 {
        self.execute(packet).unwrap_or(0)
    }

    fn execute(&self, packet: &dyn Packet) -> Option<u32> {
        let (mut a, mut x, mut pc) = (0_u32, 0_u32, 0_usize);
        let mut memory = [0_u32; MEMORY];
        let length = u32::try_from(packet.bytes().len()).ok()?;
        // Jumps only lead forward: it ends.
        while let Some(i) = self.0.get(pc) {
            pc += 1;
            let cell = i.k as usize;
            match i.code {
                LD_ABS_W | LD_ABS_H | LD_ABS_B if i.k >= ABOUT => {
                    let what = i.k - ABOUT;
                    a = if what == ABOUT_XOR { a ^ x } else { packet.about(what) };
                }
                LD_ABS_W => a = load(packet, i.k, 4)?,
                LD_ABS_H => a = load(packet, i.k, 2)?,
                LD_ABS_B => a = load(packet, i.k, 1)?,
                LD_IND_W => a = load(packet, x.wrapping_add(i.k), 4)?,
                LD_IND_H => a = load(packet, x.wrapping_add(i.k), 2)?,
                LD_IND_B => a = load(packet, x.wrapping_add(i.k), 1)?,
                LDX_MSH => x = (load(packet, i.k, 1)? & 15) * 4,
                LD_LEN => a = length,
                LDX_LEN => x = length,
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

/// Bytes of the packet, most significant first.
fn load(packet: &dyn Packet, offset: u32, size: usize) -> Option<u32> {
    let (bytes, from) = match offset {
        0..=0x7fff_ffff => (packet.bytes(), offset),
        NETWORK.. => (packet.network(), offset - NETWORK),
        LINK.. => (packet.link()?, offset - LINK),
        _ => return None,
    };
    let from = from as usize;
    let found = bytes.get(from..from.checked_add(size)?)?;
    Some(found.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
}

/// An operation of the accumulator. Division by zero in X ends the program with 0.
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
        0x90 => a.checked_rem(by)?,
        _ => a ^ by,
    })
}

/// Whether an instruction is one, with `left` instructions behind it.
fn valid(i: &Instruction, left: usize) -> bool {
    let k = i.k as usize;
    match i.code {
        LD_ABS_W | LD_ABS_H | LD_ABS_B => {
            i.k < ABOUT || (i.k - ABOUT <= LAST_ABOUT && (i.k - ABOUT).is_multiple_of(4))
        }
        LD_IND_W | LD_IND_H | LD_IND_B | LDX_MSH | LD_LEN | LDX_LEN | LD_IMM | LDX_IMM | RET_K | RET_A
        | TAX | TXA => true,
        LD_MEM | LDX_MEM | ST | STX => k < MEMORY,
        JA => k < left,
        // add sub mul div or and lsh rsh neg mod xor, by a constant or by X.
        code if code & 7 == ALU && code & 0xff == code => match code & 0xf0 {
            0x30 | 0x90 if code & BY_X == 0 => i.k != 0,
            0x60 | 0x70 if code & BY_X == 0 => i.k < 32,
            0x80 => code & BY_X == 0,
            0xb0.. => false,
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
    let mut set = 0_u16;
    for (at, i) in code.iter().enumerate() {
        set &= known.get(at).copied().unwrap_or(0);
        let mut jump = |to: usize, set: u16| {
            if let Some(mask) = known.get_mut(at.saturating_add(1).saturating_add(to)) {
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

    struct Plain(Vec<u8>);

    impl Packet for Plain {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
        fn network(&self) -> &[u8] {
            &[0x45]
        }
        fn about(&self, what: u32) -> u32 {
            what + 1
        }
    }

    fn program(code: &[(u16, u8, u8, u32)]) -> Result<Program, Errno> {
        let bytes: Vec<u8> = (code.iter())
            .flat_map(|(code, jt, jf, k)| [&code.to_ne_bytes()[..], &[*jt, *jf], &k.to_ne_bytes()].concat())
            .collect();
        Program::new(&bytes)
    }

    #[test]
    fn refuses_what_linux_refuses() {
        let all = (RET_K, 0, 0, u32::MAX);
        for bad in [
            vec![],
            vec![(LD_IMM, 0, 0, 0)],
            vec![(LD_ABS_W, 0, 0, ABOUT + 64), all],
            vec![(LD_ABS_W, 0, 0, ABOUT + 1), all],
            vec![(0x34, 0, 0, 0), all],
            vec![(0x94, 0, 0, 0), all],
            vec![(0x64, 0, 0, 32), all],
            vec![(JA, 0, 0, 1), all],
            vec![(0x15, 1, 0, 0), all],
            vec![(LD_MEM, 0, 0, 0), all],
            vec![(ST, 0, 0, 16), all],
            vec![(0x15, 0, 1, 0), (ST, 0, 0, 3), (LD_MEM, 0, 0, 3), all],
            vec![(0xffff, 0, 0, 0), all],
            vec![(0x0e, 0, 0, 0)],
            vec![all; MOST + 1],
        ] {
            assert!(program(&bad).is_err(), "{:?}", bad.first());
        }
        assert!(program(&vec![all; MOST]).is_ok() && Program::new(&[6; 9]).is_err());
    }

    #[test]
    fn looks_at_packets() {
        let run = |code: &[(u16, u8, u8, u32)]| {
            let program = program(code).unwrap();
            assert_eq!(Program::new(&program.to_bytes()).unwrap(), program);
            program.run(&Plain(vec![0x45, 0x12, 0x34, 0x56, 0x78]))
        };
        let a = (RET_A, 0, 0, 0);
        assert_eq!(run(&[(LD_ABS_W, 0, 0, 1), a]), 0x1234_5678);
        assert_eq!(run(&[(LD_ABS_H, 0, 0, 3), a]), 0x5678);
        assert_eq!(run(&[(LDX_IMM, 0, 0, 2), (LD_IND_B, 0, 0, 1), a]), 0x56);
        assert_eq!(run(&[(LDX_MSH, 0, 0, 0), (TXA, 0, 0, 0), a]), 20);
        assert_eq!(run(&[(LD_LEN, 0, 0, 0), a]), 5);
        assert_eq!(run(&[(LD_ABS_B, 0, 0, NETWORK), a]), 0x45);
        assert_eq!(run(&[(LD_ABS_B, 0, 0, ABOUT + 8), a]), 9);
        // Beyond the end, before the beginning, division by nothing: thrown away.
        assert_eq!(run(&[(LD_ABS_W, 0, 0, 2), a]), 0);
        assert_eq!(run(&[(LD_ABS_B, 0, 0, NETWORK - 1), a]), 0);
        assert_eq!(run(&[(LDX_IMM, 0, 0, u32::MAX), (LD_IND_W, 0, 0, u32::MAX), a]), 0);
        assert_eq!(run(&[(LD_IMM, 0, 0, 7), (0x3c, 0, 0, 0), (RET_K, 0, 0, 1)]), 0);
        assert_eq!(run(&[(LD_IMM, 0, 0, 7), (0x94, 0, 0, 4), a]), 3);
    }
}
