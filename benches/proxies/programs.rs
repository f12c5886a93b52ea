//! The programs under comparison and the service behind them: started as children on loopback, in
//! a directory of their own, and ended by their pids.
//!
//! Each proxy gets one thread and a pool of 64 towards the service. nginx and HAProxy are asked for
//! nothing beside that; millpond keeps its defaults, so it adds `X-Forwarded-For` and
//! `X-Forwarded-Proto` and they don't.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::load::Speech;
use crate::support::process::{Process, ProgramError, Workplace, free_address};

pub(crate) const SMALL_BODY: &str =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\n";
const LARGE_BODY_BYTES: usize = 1_000_000;

/// What stands between the clients and the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Haproxy,
    /// One worker, like the others.
    Millpond,
    /// As it runs by default: a worker for each core.
    MillpondAllCores,
    /// nginx that knows nothing but bytes.
    NginxStream,
    /// HAProxy in `mode tcp`.
    HaproxyTcp,
    /// millpond with `protocol = "tcp"`, one worker.
    MillpondTcp,
    /// The same with `reuse = "promised"`, a pool of 64.
    MillpondTcpReuse,
    /// millpond with `protocol = "frames"`, one worker.
    MillpondFrames,
    /// The cheapest relay; no pool: it dials the service for each client.
    Floor,
    /// Nothing: the clients dial the service.
    Straight,
}

impl Proxy {
    pub(crate) const ALL: [Self; 11] = [
        Self::Nginx,
        Self::Haproxy,
        Self::Millpond,
        Self::MillpondAllCores,
        Self::NginxStream,
        Self::HaproxyTcp,
        Self::MillpondTcp,
        Self::MillpondTcpReuse,
        Self::MillpondFrames,
        Self::Floor,
        Self::Straight,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Millpond => "millpond",
            Self::MillpondAllCores => "millpond_all_cores",
            Self::NginxStream => "nginx_stream",
            Self::HaproxyTcp => "haproxy_tcp",
            Self::MillpondTcp => "millpond_tcp",
            Self::MillpondTcpReuse => "millpond_tcp_reuse",
            Self::MillpondFrames => "millpond_frames",
            Self::Floor => "floor",
            Self::Straight => "straight",
        }
    }

    /// Whether it can stand under a workload that needs `speech`.
    pub(crate) fn speaks(self, speech: Speech) -> bool {
        match self {
            Self::Nginx | Self::Haproxy | Self::Millpond | Self::MillpondAllCores => {
                speech == Speech::Http
            }
            Self::NginxStream | Self::HaproxyTcp | Self::MillpondTcp | Self::MillpondTcpReuse => {
                speech == Speech::Tcp
            }
            Self::MillpondFrames => speech == Speech::Frames,
            Self::Floor | Self::Straight => true,
        }
    }
}

/// The nginx that answers.
pub(crate) struct Service {
    process: Process,
    address: SocketAddr,
}

impl Service {
    /// # Errors
    /// nginx is absent or does not start.
    pub(crate) fn start(workplace: &Workplace) -> Result<Self, ProgramError> {
        let address = free_address()?;
        workplace.file("large", &"x".repeat(LARGE_BODY_BYTES))?;
        let root = workplace.directory().display();
        let server = format!(
            "server {{
                listen {address} backlog=4096;
                keepalive_requests 1000000000; keepalive_timeout 3600s;
                location = /empty {{ return 204; }}
                location = /small {{ return 200 \"{SMALL_BODY}\"; }}
                location = /large {{ root {root}; sendfile on; open_file_cache max=8; }}
            }}"
        );
        let mut command = nginx(workplace, "service", &server)?;
        let process = Process::start("the service (nginx)", workplace, &mut command, address)?;
        Ok(Self { process, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration, ProgramError> {
        self.process.cpu_time()
    }
}

/// One proxy, running.
pub(crate) struct Program {
    proxy: Proxy,
    /// `None`: there is no proxy.
    process: Option<Process>,
    address: SocketAddr,
}

impl Program {
    /// # Errors
    /// The program is absent or does not start.
    pub(crate) fn start(
        proxy: Proxy,
        workplace: &Workplace,
        service: SocketAddr,
    ) -> Result<Self, ProgramError> {
        let address = free_address()?;
        let mut command = match proxy {
            Proxy::Straight => {
                return Ok(Self {
                    proxy,
                    process: None,
                    address: service,
                });
            }
            Proxy::Nginx => nginx(workplace, proxy.name(), &nginx_proxy(address, service))?,
            Proxy::NginxStream => nginx_stream(workplace, proxy.name(), address, service)?,
            Proxy::Haproxy => haproxy(workplace, proxy.name(), &haproxy_http(address, service))?,
            Proxy::HaproxyTcp => haproxy(workplace, proxy.name(), &haproxy_tcp(address, service))?,
            Proxy::Millpond
            | Proxy::MillpondAllCores
            | Proxy::MillpondTcp
            | Proxy::MillpondTcpReuse
            | Proxy::MillpondFrames => millpond(workplace, proxy, address, service)?,
            Proxy::Floor => {
                let mut command = Command::new(std::env::current_exe()?);
                command
                    .arg("--floor")
                    .args([address.to_string(), service.to_string()]);
                command
            }
        };
        let process = Process::start(proxy.name(), workplace, &mut command, address)?;
        Ok(Self {
            proxy,
            process: Some(process),
            address,
        })
    }

    pub(crate) fn proxy(&self) -> Proxy {
        self.proxy
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

fn nginx(workplace: &Workplace, name: &str, server: &str) -> Result<Command, ProgramError> {
    let directory = workplace.directory().display();
    let config = format!(
        "daemon off; worker_processes 1; pid {directory}/{name}.pid;
        error_log stderr warn;
        events {{ worker_connections 4096; }}
        http {{
            access_log off; tcp_nodelay on; default_type text/plain;
            client_body_temp_path {directory}/{name}.body; proxy_temp_path {directory}/{name}.proxy;
            fastcgi_temp_path {directory}/{name}.fcgi; uwsgi_temp_path {directory}/{name}.uwsgi;
            scgi_temp_path {directory}/{name}.scgi;
            {server}
        }}"
    );
    let config = workplace.file(&format!("{name}.nginx"), &config)?;
    Ok(nginx_command(workplace, &config))
}

fn nginx_command(workplace: &Workplace, config: &Path) -> Command {
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(workplace.directory())
        .arg("-c")
        .arg(config)
        .args(["-e", "stderr"]);
    command
}

fn nginx_proxy(listen: SocketAddr, service: SocketAddr) -> String {
    // Without temporary files a slow client is waited for; with them nginx would be measured writing
    // to disk.
    format!(
        "upstream service {{
            server {service}; keepalive 64; keepalive_requests 1000000000; keepalive_timeout 3600s;
        }}
        server {{
            listen {listen} backlog=4096;
            keepalive_requests 1000000000; keepalive_timeout 3600s;
            location / {{
                proxy_pass http://service; proxy_http_version 1.1;
                proxy_set_header Connection \"\"; proxy_max_temp_file_size 0;
            }}
        }}"
    )
}

/// nginx without HTTP. Debian packages the module apart.
fn nginx_stream(
    workplace: &Workplace,
    name: &str,
    listen: SocketAddr,
    service: SocketAddr,
) -> Result<Command, ProgramError> {
    let directory = workplace.directory().display();
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;
        daemon off; worker_processes 1; pid {directory}/{name}.pid;
        error_log stderr warn;
        events {{ worker_connections 4096; }}
        stream {{
            access_log off; tcp_nodelay on;
            server {{ listen {listen} backlog=4096; proxy_pass {service}; }}
        }}"
    );
    let config = workplace.file(&format!("{name}.nginx"), &config)?;
    Ok(nginx_command(workplace, &config))
}

fn haproxy(workplace: &Workplace, name: &str, config: &str) -> Result<Command, ProgramError> {
    let config = workplace.file(&format!("{name}.cfg"), config)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(config);
    Ok(command)
}

fn haproxy_tcp(listen: SocketAddr, service: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
        defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
        frontend clients\n  bind {listen} backlog 4096\n  default_backend service\n\
        backend service\n  server one {service}\n"
    )
}

fn haproxy_http(listen: SocketAddr, service: SocketAddr) -> String {
    format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
        defaults\n  mode http\n  http-reuse always\n  timeout connect 5s\n  timeout client 1h\n  \
        timeout server 1h\n  timeout http-keep-alive 1h\n\
        frontend clients\n  bind {listen} backlog 4096\n  default_backend service\n\
        backend service\n  server one {service} pool-max-conn 64 pool-purge-delay 1h\n"
    )
}

fn millpond(
    workplace: &Workplace,
    proxy: Proxy,
    listen: SocketAddr,
    service: SocketAddr,
) -> Result<Command, ProgramError> {
    let name = proxy.name();
    let workers = usize::from(proxy != Proxy::MillpondAllCores);
    let protocol = match proxy {
        Proxy::MillpondTcp => "protocol = \"tcp\"",
        Proxy::MillpondTcpReuse => {
            "protocol = \"tcp\"\ntcp = { reuse = \"promised\", quiet = \"1ms\" }"
        }
        Proxy::MillpondFrames => "protocol = \"frames\"\nframes.delimiter = \"\\r\\n\\r\\n\"",
        _ => "protocol = \"http\"",
    };
    let config = format!(
        "workers = {workers}\n[admin]\nlisten = \"off\"\n\
        [log]\nlevel = \"warn\"\n\
        [upstream.bench]\n{protocol}\nendpoints = [\"{service}\"]\n\
        [upstream.bench.pool]\nsize = 64\nidle_timeout = \"1h\"\n\
        [listener.bench]\nlisten = \"{listen}\"\nupstream = \"bench\"\n"
    );
    let config = workplace.file(&format!("{name}.toml"), &config)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.arg("run").arg("--config").arg(config);
    Ok(command)
}
