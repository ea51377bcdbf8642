//! Memory devices: null(4), zero, full(4), random(4).

use std::any::Any;
use std::sync::Arc;

use kernel::Kernel;
use linux_abi::Errno;
use linux_abi::fs::makedev;
use vfs::{FileOps, MapRequest, MapSource, OpenFile, Result, Whence};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

struct MemDevice(Kind);

impl FileOps for MemDevice {
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn seekable(&self) -> bool {
        true
    }
    fn seek(&self, _file: &OpenFile, _offset: i64, _whence: Whence) -> Result<u64> {
        Ok(0)
    }
    fn read(&self, _file: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        match self.0 {
            Kind::Null => return Ok(0),
            Kind::Zero | Kind::Full => buf.fill(0),
            Kind::Random => {
                let mut done = 0;
                while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
                    done += rustix::rand::getrandom(&mut *rest, rustix::rand::GetRandomFlags::empty())
                        .map_err(|e| Errno::from_raw(e.raw_os_error()))?;
                }
            }
        }
        Ok(buf.len())
    }
    fn write(&self, _file: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        if self.0 == Kind::Full { Err(Errno::ENOSPC) } else { Ok(buf.len()) }
    }
    fn append(&self, file: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        self.write(file, buf, 0).map(|n| (n, 0))
    }
    fn mmap(&self, _file: &OpenFile, _request: &MapRequest) -> Result<MapSource> {
        if self.0 == Kind::Zero { Ok(MapSource::Anonymous) } else { Err(Errno::ENODEV) }
    }
}

/// An open null(4).
pub fn null() -> Arc<dyn FileOps> {
    Arc::new(MemDevice(Kind::Null))
}

/// Registers the devices of major 1.
pub fn register(kernel: &Kernel) {
    for (minor, kind) in
        [(3, Kind::Null), (5, Kind::Zero), (7, Kind::Full), (8, Kind::Random), (9, Kind::Random)]
    {
        let open = move |_: &Arc<dyn vfs::Inode>, _, _: &mut dyn vfs::Caller| -> Result<Arc<dyn FileOps>> {
            Ok(Arc::new(MemDevice(kind)))
        };
        kernel.register_device(false, makedev(1, minor), Arc::new(open));
    }
}
