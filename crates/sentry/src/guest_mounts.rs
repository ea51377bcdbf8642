//! The file system types that a guest may mount by itself (mount(2)).

use std::sync::Arc;

use kernel::Kernel;
use linux_abi::Errno;

use crate::maker::{fresh_device, host_memory};

/// Makes the types known to the kernel.
pub(crate) fn register(kernel: &Arc<Kernel>) {
    let types = &kernel.io.file_systems;
    for name in ["tmpfs", "ramfs"] {
        types.register(
            name,
            Arc::new(|_source, data| {
                let options = fs_tmp::Options::parse(data, host_memory(), fresh_device())?;
                Ok(fs_tmp::TmpFs::new(options))
            }),
        );
    }
    let ipc = Arc::downgrade(kernel);
    types.register(
        "mqueue",
        Arc::new(move |_source, _data| {
            let kernel = ipc.upgrade().ok_or(Errno::ENODEV)?;
            Ok(kernel::mqueue::MqueueFs::new(kernel.ipc.clone()))
        }),
    );
    // The kernel holds its types: they must not hold it.
    let weak = Arc::downgrade(kernel);
    types.register(
        "proc",
        Arc::new(move |_source, data| {
            let kernel = weak.upgrade().ok_or(Errno::ENODEV)?;
            fs_kernel::proc::mount(&kernel, data, fresh_device())
        }),
    );
}
