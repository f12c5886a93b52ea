//! `--keep`: service and millpond run on after the tables, for whoever wants to look for themselves.

use super::DemoError;
use super::mill::Mill;
use super::service::Service;
use crate::admin::bind::bind;
use crate::cli::stop::{Signals, until_stopped};
use crate::drain::Drained;

/// Prints where everything is, waits for a signal, and ends in order.
pub(super) async fn run(
    service: &Service,
    mill: &Mill,
    mut signals: Signals,
) -> Result<(), DemoError> {
    let admin = match &mill.config.admin {
        Some(settings) => Some((bind(&settings.listen).await?, settings.clone())),
        None => None,
    };
    let service = service.address();
    println!("\nLeft running until Ctrl-C or SIGTERM:");
    println!("  service          http://{service}/client/1");
    println!("  millpond, TCP    http://{}/client/1", mill.tcp);
    println!("  millpond, Unix   unix:{}", mill.unix.display());
    if let Some(Ok(address)) = admin.as_ref().map(|(listening, _)| listening.address()) {
        println!("  admin            http://{address}/");
    }
    println!("For example:");
    println!(
        "  curl --unix-socket {} http://localhost/client/1",
        mill.unix.display()
    );
    println!("  ss -tn state established dst {service}   # millpond's connections to the service");
    match until_stopped(&mill.proxy, admin, &mut signals).await {
        Drained::Complete => Ok(()),
        Drained::CutOff { .. } => Err(DemoError::CutOff),
    }
}
