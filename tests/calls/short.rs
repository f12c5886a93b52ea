//! Clients that connect, ask once and leave.

use crate::frame::{Ask, Frame};
use crate::service::obedient;
use crate::support::client::Client;
use crate::{SIZE, in_front_of, setting};

#[test]
fn short_lived_clients_cost_the_service_no_connection() {
    let clients = setting("MILLPOND_CLIENTS", 2000);
    let service = obedient();
    let proxy = in_front_of(&service).start();
    let address = proxy.address();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for number in (thread..clients).step_by(8) {
                    let text = format!("client {number}");
                    let mut client = Client::dial(address);
                    // All of them have the same id.
                    client.call(1, &text);
                    assert_eq!(client.told(), Frame::reply(1, &text));
                    client.leave();
                }
            });
        }
    });
    let now = proxy.wait_completed(clients);
    assert!(service.accepted() <= SIZE, "{:#}", now.0);
    assert_eq!(now.sum("/listeners/front/refusals"), 0, "{:#}", now.0);
    now.expect_no_resets();
    proxy.finish();
}
