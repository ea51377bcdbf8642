//! config.json of a bundle.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Config {
    pub(crate) oci_version: String,
    pub(crate) process: Option<Process>,
    pub(crate) root: Option<Root>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) hostname: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) domainname: String,
    pub(crate) mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<Hooks>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) linux: Option<Linux>,
    /// Fields that this runtime does not know, by their paths. The
    /// specification wants them ignored.
    #[serde(skip)]
    pub(crate) unknown: Vec<String>,
}

impl Config {
    /// Reads and checks the configuration of a bundle.
    pub(crate) fn load(bundle: &Path) -> Result<Config> {
        let path = bundle.join("config.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("JSON specification file config.json not found in {}", bundle.display())
            }
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let config = Config::read(&text)?;
        config.check()?;
        Ok(config)
    }

    fn read(text: &[u8]) -> Result<Config> {
        let mut unknown = Vec::new();
        let mut config: Config = parse_noting(text, &mut |field| unknown.push(field))
            .context("config.json is not a valid configuration")?;
        config.unknown = unknown;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let version = &self.oci_version;
        if version.is_empty() {
            bail!("ociVersion is missing in config.json");
        }
        let mut numbers = version.split(['.', '-', '+']);
        let all_numbers = (0..3).all(|_| numbers.next().is_some_and(|n| n.parse::<u32>().is_ok()));
        if !all_numbers || !version.starts_with("1.") {
            bail!("unsupported ociVersion {version}: this runtime implements 1.x");
        }
        let root = self.root.as_ref().context("root is missing in config.json")?;
        if root.path.as_os_str().is_empty() {
            bail!("root.path is missing in config.json");
        }
        Ok(())
    }
}

/// Reads JSON where, as Go's encoder likes it, `null` may stand for "absent". A wrong field is told by its path.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T> {
    parse_noting(text, &mut |_| {})
}

/// [`parse`] that tells of fields nobody reads.
fn parse_noting<T: serde::de::DeserializeOwned>(text: &[u8], note: &mut dyn FnMut(String)) -> Result<T> {
    let mut value: serde_json::Value = serde_json::from_slice(text)?;
    drop_nulls(&mut value);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = serde_ignored::deserialize(tracked, |path| note(path.to_string().replace("?.", "")));
    Ok(read.map_err(|error| serde_path_to_error::Error::new(track.path(), error))?)
}

fn drop_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Root {
    pub(crate) path: PathBuf,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) readonly: bool,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Process {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) terminal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) console_size: Option<ConsoleSize>,
    pub(crate) user: User,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    pub(crate) cwd: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) no_new_privileges: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) apparmor_profile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) selinux_label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) oom_score_adj: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scheduler: Option<Scheduler>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub(crate) exec_cpu_affinity: Option<serde_json::Value>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ConsoleSize {
    pub(crate) height: u64,
    pub(crate) width: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) umask: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Capabilities {
    pub(crate) bounding: Vec<String>,
    pub(crate) effective: Vec<String>,
    pub(crate) inheritable: Vec<String>,
    pub(crate) permitted: Vec<String>,
    pub(crate) ambient: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) hard: u64,
    pub(crate) soft: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Scheduler {
    pub(crate) policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) nice: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) flags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) deadline: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period: Option<u64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct IoPriority {
    pub(crate) class: String,
    pub(crate) priority: i32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Mount {
    pub(crate) destination: String,
    #[serde(rename = "type", skip_serializing_if = "String::is_empty")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) source: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) options: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) gid_mappings: Vec<IdMapping>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Hooks {
    pub(crate) prestart: Vec<Hook>,
    pub(crate) create_runtime: Vec<Hook>,
    pub(crate) create_container: Vec<Hook>,
    pub(crate) start_container: Vec<Hook>,
    pub(crate) poststart: Vec<Hook>,
    pub(crate) poststop: Vec<Hook>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Hook {
    pub(crate) path: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<i64>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Linux {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) uid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) gid_mappings: Vec<IdMapping>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) sysctl: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<Resources>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) cgroups_path: String,
    pub(crate) namespaces: Vec<Namespace>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) devices: Vec<Device>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seccomp: Option<super::seccomp::Seccomp>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) rootfs_propagation: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) masked_paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) readonly_paths: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) intel_rdt: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) personality: Option<Personality>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_policy: Option<MemoryPolicy>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) mount_label: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) net_devices: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) time_offsets: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Personality {
    pub(crate) domain: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) flags: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct MemoryPolicy {
    pub(crate) mode: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) nodes: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) flags: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdMapping {
    #[serde(rename = "containerID")]
    pub(crate) container_id: u32,
    #[serde(rename = "hostID")]
    pub(crate) host_id: u32,
    pub(crate) size: u32,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Namespace {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) path: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Device {
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) major: i64,
    pub(crate) minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file_mode: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gid: Option<u32>,
}

/// `linux.resources`, and the file that `update --resources` reads.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Resources {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) devices: Vec<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu: Option<Cpu>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pids: Option<Pids>,
    #[serde(rename = "blockIO", skip_serializing_if = "Option::is_none")]
    pub(crate) block_io: Option<BlockIo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hugepage_limits: Vec<HugepageLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) network: Option<Network>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) rdma: BTreeMap<String, serde_json::Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) unified: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Memory {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reservation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swap: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", skip_serializing_if = "Option::is_none")]
    pub(crate) disable_oom_killer: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<i64>,
    #[serde(rename = "kernelTCP", skip_serializing_if = "Option::is_none")]
    pub(crate) kernel_tcp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) use_hierarchy: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) check_before_update: Option<bool>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Cpu {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shares: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quota: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) realtime_runtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) realtime_period: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mems: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pids {
    pub(crate) limit: i64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct BlockIo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leaf_weight: Option<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) weight_device: Vec<WeightDevice>,
    pub(crate) throttle_read_bps_device: Vec<Throttle>,
    pub(crate) throttle_write_bps_device: Vec<Throttle>,
    #[serde(rename = "throttleReadIOPSDevice")]
    pub(crate) throttle_read_iops_device: Vec<Throttle>,
    #[serde(rename = "throttleWriteIOPSDevice")]
    pub(crate) throttle_write_iops_device: Vec<Throttle>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WeightDevice {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) leaf_weight: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Throttle {
    pub(crate) major: i64,
    pub(crate) minor: i64,
    pub(crate) rate: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct HugepageLimit {
    pub(crate) page_size: String,
    pub(crate) limit: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Network {
    #[serde(rename = "classID", skip_serializing_if = "Option::is_none")]
    pub(crate) class_id: Option<u32>,
    pub(crate) priorities: Vec<Priority>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Priority {
    pub(crate) name: String,
    pub(crate) priority: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_fields_are_told_by_their_paths() {
        for (text, path) in [
            (r#"{"process":{"args":["a",5]}}"#, "process.args[1]: invalid type"),
            (
                r#"{"linux":{"resources":{"memory":{"limit":"64m"}}}}"#,
                "linux.resources.memory.limit: invalid type",
            ),
            (r#"{"mounts":[{},{"options":"ro"}]}"#, "mounts[1].options: invalid type"),
            (r#"{"ociVersion":"1.2.0","#, "at line 1"),
        ] {
            let error = format!("{:#}", Config::read(text.as_bytes()).unwrap_err());
            assert!(error.contains(path), "{error}");
        }
        let fine = Config::read(br#"{"process":{"args":null,"later":1},"mounts":[{"later":2}]}"#).unwrap();
        assert_eq!(fine.unknown, ["process.later", "mounts.0.later"]);
    }

    #[test]
    fn versions_are_checked() {
        let config = |version: &str| Config {
            oci_version: version.into(),
            root: Some(Root { path: "rootfs".into(), readonly: false }),
            ..Config::default()
        };
        for good in ["1.0.0", "1.0.2-dev", "1.2.0", "1.1.0+more"] {
            assert!(config(good).check().is_ok(), "{good}");
        }
        for bad in ["", "2.0.0", "1", "1.0", "1.x.0", "one"] {
            assert!(config(bad).check().is_err(), "{bad}");
        }
    }
}
