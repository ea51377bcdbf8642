//! The containers: one of each runtime with the servers, and the clients outside of them, which runc runs.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::rows::{Place, ROWS, Row};
use crate::bench::side::seconds_of_group;
use crate::run;

const IMAGE: &str = "sallet-app:net";
/// The longest that one load may take beside its own time, and the servers to start.
const SLACK: Duration = Duration::from_secs(90);

/// A container with servers.
pub(super) struct Side {
    pub(super) runtime: String,
    container: String,
    /// Its first process on the host.
    process: String,
    address: String,
    /// The published port of each of its own.
    published: BTreeMap<u16, String>,
}

impl Side {
    /// What the table calls it: the runtime under test has another name in Docker.
    pub(super) fn name(&self) -> &str {
        if matches!(self.runtime.as_str(), "runc" | "runsc") { &self.runtime } else { "sallet" }
    }

    /// CPU seconds that all of the container's processes used so far.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        seconds_of_group(&self.process)
    }
}

/// All containers; removed when it goes out of scope.
pub(super) struct Sides {
    pub(super) all: Vec<Side>,
    label: String,
    /// The client's containers: on the bridge, and on the host's network.
    clients: [String; 2],
    /// The bridge's address on the host; published there, a port goes through no proxy.
    bridge: String,
}

impl Sides {
    /// Starts everything and waits until it serves.
    pub(super) fn start(runtimes: &[String]) -> Result<Sides> {
        let label = format!("sallet-net=sn{}", std::process::id());
        let mut sides = Sides { all: Vec::new(), label, clients: Default::default(), bridge: String::new() };
        let client = |network| {
            let words = ["run", "-d", "--init", "--runtime", "runc", "--network", network, "--label"];
            docker(&[&words[..], &[sides.label.as_str(), IMAGE, "sleep", "infinity"]].concat())
        };
        sides.clients = [client("bridge")?, client("host")?];
        let [beside, _] = &sides.clients;
        sides.bridge = docker(&["inspect", "-f", "{{.NetworkSettings.Gateway}}", beside])?;
        for runtime in runtimes {
            let side = sides.server(runtime).with_context(|| format!("the servers under {runtime}"))?;
            sides.all.push(side);
        }
        Ok(sides)
    }

    fn server(&self, runtime: &str) -> Result<Side> {
        let mut words =
            ["run", "-d", "--runtime", runtime, "--label", &self.label].map(str::to_owned).to_vec();
        let mut ports: Vec<u16> = ROWS.iter().map(|row| row.port).collect();
        ports.dedup();
        for port in &ports {
            words.extend(["-p".to_owned(), format!("{}::{port}", self.bridge)]);
        }
        words.push(IMAGE.to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let container = docker(&words)?;
        let deadline = Instant::now() + SLACK;
        while !docker(&["logs", &container])?.lines().any(|line| line == "ready") {
            let running = docker(&["inspect", "-f", "{{.State.Running}}", &container])?;
            ensure!(running == "true" && Instant::now() < deadline, "they do not serve");
            std::thread::sleep(Duration::from_millis(200));
        }
        let published = ports
            .iter()
            .map(|port| {
                let shown = docker(&["port", &container, &format!("{port}/tcp")])?;
                let host_port = shown.rsplit(':').next().context("a published port")?;
                Ok((*port, host_port.to_owned()))
            })
            .collect::<Result<_>>()?;
        Ok(Side {
            runtime: runtime.to_owned(),
            process: docker(&["inspect", "-f", "{{.State.Pid}}", &container])?,
            address: docker(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", &container])?,
            container,
            published,
        })
    }

    /// Lets one client work for about so many seconds: units of work, and seconds that they took.
    pub(super) fn load(
        &self,
        side: &Side,
        place: Place,
        row: &Row,
        seconds: u32,
        rate: f64,
    ) -> Result<(f64, f64)> {
        let port = row.port.to_string();
        let [beside, host] = &self.clients;
        let (client, address, port) = match place {
            Place::Inside => (&side.container, "127.0.0.1", &port),
            Place::Container => (beside, side.address.as_str(), &port),
            Place::Published => {
                let port = side.published.get(&row.port).context("it is not published")?;
                (host, self.bridge.as_str(), port)
            }
        };
        let (seconds_word, rate) = (seconds.to_string(), format!("{rate:.0}"));
        let load = ["exec", client, "bash", "/load.sh", row.name, address, port, &seconds_word, &rate];
        let output = docker(&load)?;
        let mut numbers = output.split_whitespace().map(str::parse::<f64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(units)), Some(Ok(seconds))) => Ok((units, seconds)),
            _ => bail!("no numbers: {output}"),
        }
    }

    /// CPU seconds that all containers used so far, the clients' too.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let sides: Option<f64> = self.all.iter().map(Side::cpu_seconds).sum();
        let clients: Option<f64> = self
            .clients
            .iter()
            .map(|client| seconds_of_group(&docker(&["inspect", "-f", "{{.State.Pid}}", client]).ok()?))
            .sum();
        Some(sides? + clients?)
    }
}

impl Drop for Sides {
    fn drop(&mut self) {
        let filter = format!("label={}", self.label);
        let found = docker(&["ps", "-aq", "--filter", &filter]).unwrap_or_default();
        if !found.is_empty() {
            let words: Vec<&str> = ["rm", "-f", "-v"].into_iter().chain(found.split_whitespace()).collect();
            let _ = docker(&words);
        }
    }
}

/// What a command of Docker's client printed, without the end of the line.
fn docker(words: &[&str]) -> Result<String> {
    let mut command = Command::new("docker");
    command.args(words);
    let finished = run::limited(command, SLACK)?;
    let ended = finished.status.map_or("no end in time".to_owned(), |status| status.to_string());
    let first = words.first().copied().unwrap_or_default();
    let worked = finished.status.is_some_and(|status| status.success());
    ensure!(worked, "docker {first}: {ended}: {}{}", finished.stdout, finished.stderr);
    Ok(finished.stdout.trim().to_owned())
}
