//! Redis and what stands in front of it.
//!
//! twemproxy has one connection to Redis, which is its default and what its manual advises; millpond
//! shares one, and may have three more for what can't be shared.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::process::{Process, ProgramError, Workplace, free_address};

/// What stands between the clients and Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    kind: Kind,
    label: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Nothing: the clients dial Redis.
    Straight,
    Twemproxy,
    /// A build of millpond; one worker, as twemproxy has.
    Millpond(String),
    /// The same as it runs by default: a worker for each core.
    MillpondAllCores(String),
}

impl Proxy {
    pub(crate) const NAMES: [&str; 4] = ["straight", "twemproxy", "millpond", "millpond_all_cores"];
    /// The labels of the two that others are held against.
    pub(crate) const STRAIGHT: &str = Self::NAMES[0];
    pub(crate) const TWEMPROXY: &str = Self::NAMES[1];

    /// Everything that can be measured. Builds have numbers if there are several.
    pub(crate) fn all(binaries: &[String]) -> Vec<Self> {
        let mut all = vec![
            Self::new(Kind::Straight, String::new()),
            Self::new(Kind::Twemproxy, String::new()),
        ];
        for (number, binary) in (1..).zip(binaries) {
            let suffix = match binaries.len() {
                1 => String::new(),
                _ => format!(" {number}"),
            };
            all.push(Self::new(Kind::Millpond(binary.clone()), suffix.clone()));
            all.push(Self::new(Kind::MillpondAllCores(binary.clone()), suffix));
        }
        all
    }

    fn new(kind: Kind, suffix: String) -> Self {
        let mut proxy = Self {
            kind,
            label: suffix,
        };
        proxy.label.insert_str(0, proxy.name());
        proxy
    }

    /// What `--only` knows it by.
    pub(crate) fn name(&self) -> &'static str {
        Self::NAMES[match self.kind {
            Kind::Straight => 0,
            Kind::Twemproxy => 1,
            Kind::Millpond(_) => 2,
            Kind::MillpondAllCores(_) => 3,
        }]
    }

    /// What the table calls it.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }
}

/// The Redis that answers.
pub(crate) struct Service {
    process: Process,
    address: SocketAddr,
}

impl Service {
    /// # Errors
    /// redis-server is absent or does not start.
    pub(crate) fn start(workplace: &Workplace) -> Result<Self, ProgramError> {
        let address = free_address()?;
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", &address.ip().to_string()])
            .args(["--port", &address.port().to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--tcp-backlog", "4096"])
            .arg("--dir")
            .arg(workplace.directory());
        let process = Process::start("redis-server", workplace, &mut command, address)?;
        Ok(Self { process, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration, ProgramError> {
        self.process.cpu_time()
    }

    /// How many connections it has accepted, with that of this question.
    pub(crate) fn connections_received(&self) -> Result<u64, ProgramError> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(b"INFO stats\r\nQUIT\r\n")?;
        let mut count = 0;
        for line in BufReader::new(&stream).lines() {
            if let Some(number) = line?.strip_prefix("total_connections_received:") {
                count = number.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        Ok(count)
    }
}

/// One proxy, running.
pub(crate) struct Program {
    label: String,
    /// `None`: there is no proxy.
    process: Option<Process>,
    address: SocketAddr,
}

impl Program {
    /// A build of millpond that can't have this configuration is left out: what it said.
    ///
    /// # Errors
    /// The program is absent or does not start.
    pub(crate) fn start(
        proxy: &Proxy,
        workplace: &Workplace,
        service: SocketAddr,
    ) -> Result<Result<Self, String>, ProgramError> {
        let address = free_address()?;
        let label = proxy.label.clone();
        let mut command = match &proxy.kind {
            Kind::Straight => {
                return Ok(Ok(Self {
                    label,
                    process: None,
                    address: service,
                }));
            }
            Kind::Twemproxy => twemproxy(workplace, address, service)?,
            Kind::Millpond(binary) => millpond(binary, "workers = 1", workplace, address, service)?,
            Kind::MillpondAllCores(binary) => millpond(binary, "", workplace, address, service)?,
        };
        if let Kind::Millpond(binary) | Kind::MillpondAllCores(binary) = &proxy.kind
            && let Some(said) = objection(binary, workplace)?
        {
            return Ok(Err(said));
        }
        let process = Process::start(&label, workplace, &mut command, address)?;
        Ok(Ok(Self {
            label,
            process: Some(process),
            address,
        }))
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Where the clients go.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration, ProgramError> {
        self.process
            .as_ref()
            .map_or(Ok(Duration::ZERO), Process::cpu_time)
    }
}

fn twemproxy(
    workplace: &Workplace,
    listen: SocketAddr,
    service: SocketAddr,
) -> Result<Command, ProgramError> {
    let config = format!(
        "bench:\n  listen: {listen}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n  \
         backlog: 4096\n  server_connections: 1\n  preconnect: true\n  servers:\n   - {service}:1\n"
    );
    let config = workplace.file("nutcracker.yml", &config)?;
    let statistics = free_address()?;
    let mut command = Command::new("nutcracker");
    command
        .arg("--conf-file")
        .arg(config)
        .args(["--stats-addr", &statistics.ip().to_string()])
        .args(["--stats-port", &statistics.port().to_string()])
        .args(["--verbose", "4"]);
    Ok(command)
}

const MILLPOND_FILE: &str = "millpond.toml";

fn millpond(
    binary: &str,
    workers: &str,
    workplace: &Workplace,
    listen: SocketAddr,
    service: SocketAddr,
) -> Result<Command, ProgramError> {
    let config = format!(
        "{workers}\n[admin]\nlisten = \"off\"\n[log]\nlevel = \"warn\"\n\
         [upstream.bench]\nprotocol = \"redis\"\nendpoints = [\"{service}\"]\n\
         [upstream.bench.pool]\nsize = 4\nshared = 1\n\
         [listener.bench]\nlisten = \"{listen}\"\nupstream = \"bench\"\n"
    );
    let config = workplace.file(MILLPOND_FILE, &config)?;
    let mut command = Command::new(binary);
    command.arg("run").arg("--config").arg(config);
    Ok(command)
}

/// What a build has against the configuration.
fn objection(binary: &str, workplace: &Workplace) -> Result<Option<String>, ProgramError> {
    let checked = Command::new(binary)
        .args(["check", "--config"])
        .arg(workplace.directory().join(MILLPOND_FILE))
        .stdin(Stdio::null())
        .output();
    let output = checked.map_err(|source| ProgramError::Absent {
        name: binary.to_owned(),
        source,
    })?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = said.replace('\n', " ");
    Ok(Some(format!("{binary} says: {}", said.trim())))
}
