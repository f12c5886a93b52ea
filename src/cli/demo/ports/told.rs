//! What the first table says, and what it means.

use std::net::SocketAddrV4;

use super::super::mill::POOL_SIZE;
use super::{CLIENTS, CLIENTS_A_SECOND, ClientPorts, Ports, Row};
use crate::cli::table::{count, or_not_there, paragraph, point, table};

impl Ports {
    /// Prints the table, what it means and how to see it with `ss`.
    pub(crate) fn print(&self) {
        let opening = format!(
            "PORTS. {} clients, {} a second: each connects, makes one request, checks the answer and \
             ends its connection first. Nobody tries again. {} millpond's pool has {POOL_SIZE} \
             connections, at most.",
            count(CLIENTS),
            count(CLIENTS_A_SECOND),
            self.client_ports.told()
        );
        println!("{}\n", paragraph(&opening));
        println!("{}\n", self.table());
        for what in self.meaning() {
            println!("{}", point(&what));
        }
        println!("\nThe kernel forgets TIME_WAIT after 60 s. Until then, in another window:");
        for (command, what) in self.commands() {
            println!("  {command}   # {what}");
        }
        println!();
    }

    fn table(&self) -> String {
        let headings = [
            "",
            "could\nnot\nconnect",
            "TIME_WAIT\nof the\nclients",
            "TIME_WAIT\nof\nmillpond",
            "TIME_WAIT\nof the\nservice",
            "connects\nthat the\nservice saw",
        ];
        let rows = self.rows().map(|row| {
            [
                row.way.to_owned(),
                count(row.churn.no_port),
                or_not_there(row.clients, count),
                or_not_there(row.millpond, count),
                count(row.service),
                count(row.connects),
            ]
        });
        table(headings, rows)
    }

    fn meaning(&self) -> Vec<String> {
        let no_port = |row: &Row| count(row.churn.no_port);
        let mut meaning = vec![format!(
            "Who ends a connection first keeps TIME_WAIT for 60 s. On a side that listens it costs \
             memory, on a side that dials a port. {}",
            reuse(self.tw_reuse)
        )];
        if let ClientPorts::Few(ports) = &self.client_ports {
            meaning.push(format!(
                "Straight, {} of {} clients found none of their {} ports free (EADDRNOTAVAIL).",
                no_port(&self.straight),
                count(CLIENTS),
                ports.len()
            ));
        }
        meaning.push(format!(
            "SO_REUSEADDR and SO_REUSEPORT are about binding. Set on sockets that only connect, they \
             left {} without a port; without them it was {}.",
            no_port(&self.with_reuse),
            no_port(&self.straight)
        ));
        meaning.push(format!(
            "millpond takes ports and TIME_WAIT off the leg to the service: {} connects in all. When \
             it stopped, it closed them, and then had {} in TIME_WAIT there.",
            count(self.over_tcp.connects),
            count(self.stopped)
        ));
        meaning.push(format!(
            "The clients' own leg keeps what the clients do there. Over TCP, {} found no port towards \
             millpond, and their TIME_WAIT, {}, are now towards millpond. What helps there is more \
             ports: each listen address of millpond has all of a client host's, and each client \
             host has its own.",
            no_port(&self.over_tcp),
            or_not_there(self.over_tcp.clients, count)
        ));
        meaning.push(format!(
            "On the clients' own host, a Unix socket needs no port and has no TIME_WAIT: {} could not \
             connect.",
            no_port(&self.over_unix)
        ));
        meaning
    }

    /// Commands for ss(8), and what each counts.
    fn commands(&self) -> Vec<(String, String)> {
        let of_clients = self.rows().into_iter().filter_map(|row| {
            let command = time_wait_towards(row.dialled?);
            Some((command, format!("clients {}", row.way)))
        });
        let of_millpond = (
            time_wait_towards(self.over_tcp.service_address),
            "millpond's to the service, since it stopped".to_owned(),
        );
        of_clients.chain([of_millpond]).collect()
    }
}

impl ClientPorts {
    fn told(&self) -> String {
        match self {
            Self::Few(ports) => format!(
                "Over TCP they have {} ports, {} to {} (IP_LOCAL_PORT_RANGE on their own sockets).",
                ports.len(),
                ports.start(),
                ports.end()
            ),
            Self::All(ports) => format!(
                "This kernel has no IP_LOCAL_PORT_RANGE (Linux 6.3), so over TCP they have all of the \
                 host's {} ports, {} to {}, and the want of ports does not show.",
                count(ports.len()),
                ports.start(),
                ports.end()
            ),
        }
    }
}

/// The command that counts TIME_WAIT on the side that dialled `address`.
fn time_wait_towards(address: SocketAddrV4) -> String {
    format!("ss -Htan state time-wait dst {address} | wc -l")
}

/// When a port in TIME_WAIT is given out again (ip-sysctl, `tcp_tw_reuse`).
fn reuse(tw_reuse: u8) -> String {
    let when = match tw_reuse {
        0 => "does not give it out again sooner",
        1 => "gives it out again after a second",
        _ => "gives it out again after a second on loopback, after those 60 across a network",
    };
    format!("This host {when} (net.ipv4.tcp_tw_reuse = {tw_reuse}).")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_option_is_told_of() {
        let told = ClientPorts::All(32_768..=60_999).told();
        assert!(told.contains("no IP_LOCAL_PORT_RANGE"), "{told}");
        assert!(told.contains("28,232 ports, 32768 to 60999"), "{told}");
        let told = ClientPorts::Few(60_800..=60_999).told();
        assert!(told.contains("200 ports, 60800 to 60999"), "{told}");
    }

    #[test]
    fn reuse_is_told_as_the_host_is_set() {
        for value in 0..=2 {
            let told = reuse(value);
            assert!(told.contains(&format!("tcp_tw_reuse = {value}")), "{told}");
            assert_eq!(told.contains("loopback"), value == 2, "{told}");
        }
    }
}
