//! The initial stack of a program: argv, envp, auxv, as `binfmt_elf` lays it out.

use linux_abi::Errno;

/// Auxiliary vector keys: getauxval(3).
#[expect(missing_docs, reason = "named in getauxval(3)")]
pub mod at {
    pub const PHDR: u64 = 3;
    pub const PHENT: u64 = 4;
    pub const PHNUM: u64 = 5;
    pub const PAGESZ: u64 = 6;
    pub const BASE: u64 = 7;
    pub const FLAGS: u64 = 8;
    pub const ENTRY: u64 = 9;
    pub const UID: u64 = 11;
    pub const EUID: u64 = 12;
    pub const GID: u64 = 13;
    pub const EGID: u64 = 14;
    pub const PLATFORM: u64 = 15;
    pub const HWCAP: u64 = 16;
    pub const CLKTCK: u64 = 17;
    pub const SECURE: u64 = 23;
    pub const RANDOM: u64 = 25;
    pub const HWCAP2: u64 = 26;
    pub const RSEQ_FEATURE_SIZE: u64 = 27;
    pub const RSEQ_ALIGN: u64 = 28;
    pub const EXECFN: u64 = 31;
    pub const SYSINFO_EHDR: u64 = 33;
    pub const MINSIGSTKSZ: u64 = 51;
}

/// What goes onto the stack.
pub struct Contents<'a> {
    /// Arguments, without NUL.
    pub args: &'a [Vec<u8>],
    /// Environment, without NUL.
    pub env: &'a [Vec<u8>],
    /// The name given to execve (AT_EXECFN).
    pub exec_name: &'a [u8],
    /// Sixteen random bytes (AT_RANDOM).
    pub random: [u8; 16],
    /// The auxiliary vector without RANDOM, EXECFN, PLATFORM and the end mark.
    pub auxv: &'a [(u64, u64)],
}

/// A stack ready to be copied.
pub struct Image {
    /// The stack pointer to start with, 16-byte aligned.
    pub sp: u64,
    /// The bytes from `sp` to the top.
    pub bytes: Vec<u8>,
    /// Where the arguments begin and end.
    pub args: (u64, u64),
    /// Where the environment begins and ends.
    pub env: (u64, u64),
    /// The whole auxiliary vector, with its end mark.
    pub auxv: Vec<(u64, u64)>,
}

/// Lays a stack out that ends at `top` (page aligned) and takes at most `limit` bytes; `E2BIG`.
pub fn build(top: u64, limit: u64, contents: &Contents<'_>) -> Result<Image, Errno> {
    // From the top down: a null word, the name, environment, arguments, platform, random, then the vectors.
    let strings: usize = contents.args.iter().chain(contents.env).map(|s| s.len() + 1).sum();
    let exec_name = contents.exec_name.len() + 1;
    let words = 1 + contents.args.len() + 1 + contents.env.len() + 1 + 2 * (contents.auxv.len() + 4);
    let total = 8 + exec_name + strings + 64 + words * 8;
    if total as u64 > limit {
        return Err(Errno::E2BIG);
    }
    let name_at = top - 8 - exec_name as u64;
    let strings_at = name_at - strings as u64;
    let platform_at = (strings_at - 16) & !15;
    let random_at = platform_at - 16;
    let sp = (random_at - (words * 8) as u64) & !15;

    let mut bytes = vec![0u8; (top - sp) as usize];
    let mut put = |at: u64, data: &[u8]| {
        let from = (at - sp) as usize;
        if let Some(to) = bytes.get_mut(from..from + data.len()) {
            to.copy_from_slice(data);
        }
    };
    put(name_at, contents.exec_name);
    put(platform_at, b"x86_64\0");
    put(random_at, &contents.random);

    let mut vectors: Vec<u64> = Vec::with_capacity(words);
    vectors.push(contents.args.len() as u64);
    let mut at = strings_at;
    for arg in contents.args {
        put(at, arg);
        vectors.push(at);
        at += arg.len() as u64 + 1;
    }
    vectors.push(0);
    let args = (strings_at, at);
    for var in contents.env {
        put(at, var);
        vectors.push(at);
        at += var.len() as u64 + 1;
    }
    vectors.push(0);
    let env = (args.1, at);
    let mut auxv = contents.auxv.to_vec();
    auxv.extend([(at::RANDOM, random_at), (at::EXECFN, name_at), (at::PLATFORM, platform_at), (0, 0)]);
    vectors.extend(auxv.iter().flat_map(|(k, v)| [*k, *v]));
    for (i, word) in vectors.iter().enumerate() {
        put(sp + i as u64 * 8, &word.to_ne_bytes());
    }
    Ok(Image { sp, bytes, args, env, auxv })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_aligned_and_complete() {
        let args = vec![b"prog".to_vec(), b"-x".to_vec()];
        let env = vec![b"A=b".to_vec()];
        let contents =
            Contents { args: &args, env: &env, exec_name: b"/bin/prog", random: [7; 16], auxv: &[(6, 4096)] };
        let image = build(0x7fff_0000_0000, 1 << 20, &contents).unwrap();
        assert_eq!(image.sp % 16, 0);
        assert_eq!(image.sp + image.bytes.len() as u64, 0x7fff_0000_0000);
        let word = |i: usize| u64::from_ne_bytes(image.bytes[i * 8..i * 8 + 8].try_into().unwrap());
        assert_eq!(word(0), 2);
        assert_eq!(word(1), image.args.0);
        assert_eq!(word(3), 0);
        assert_eq!(word(4), image.env.0);
        assert_eq!((word(6), word(7)), (6, 4096));
        assert_eq!(image.args.1 - image.args.0, 8);
        assert_eq!(build(0x7fff_0000_0000, 64, &contents).err(), Some(Errno::E2BIG));
    }
}
