//! `sallet features`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::oci::{VERSION, capability};
use crate::output::say;

#[derive(Debug, Args)]
pub(crate) struct Features {}

impl Features {
    #[expect(clippy::unused_self, reason = "commands have one shape")]
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let capabilities: Vec<String> = capability::names().collect();
        let features = json!({
            "ociVersionMin": "1.0.0",
            "ociVersionMax": VERSION,
            "hooks": [
                "prestart", "createRuntime", "createContainer",
                "startContainer", "poststart", "poststop",
            ],
            "mountOptions": [
                "async", "atime", "bind", "defaults", "dev", "diratime", "exec", "noatime",
                "nodev", "nodiratime", "noexec", "norelatime", "nostrictatime", "nosuid",
                "nosymfollow", "private", "ratime", "rbind", "rdev", "rdiratime", "relatime", "rexec",
                "rnoatime", "rnodev", "rnodiratime", "rnoexec", "rnorelatime", "rnostrictatime",
                "rnosuid", "rnosymfollow", "ro", "rprivate", "rrelatime", "rro", "rrw", "rshared",
                "rslave", "rstrictatime", "rsuid", "rsymfollow", "rw", "shared", "slave",
                "strictatime", "suid", "symfollow", "sync", "tmpcopyup",
            ],
            "linux": {
                "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"],
                "capabilities": capabilities,
                "cgroup": {
                    "v1": true, "v2": true, "systemd": true,
                    "systemdUser": true, "rdma": false,
                },
                "seccomp": {
                    "enabled": true,
                    "actions": [
                        "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                        "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
                    ],
                    "operators": [
                        "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT",
                        "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE",
                    ],
                    "archs": ["SCMP_ARCH_X86_64"],
                },
                "apparmor": {"enabled": false},
                "selinux": {"enabled": false},
                "intelRdt": {"enabled": false},
                "mountExtensions": {"idmap": {"enabled": false}},
            },
            "potentiallyUnsafeConfigAnnotations": [crate::create::HOST_UDS],
            "annotations": {"org.sallet.version": env!("CARGO_PKG_VERSION")},
        });
        say!("{}", serde_json::to_string_pretty(&features)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
