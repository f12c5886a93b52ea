//! Shared connections: that every slot stays exact.

use super::*;

const KEY: PoolKey = PoolKey::SOLE;

#[derive(Debug)]
struct Connection;

impl Handle for Connection {
    fn id(&self) -> u64 {
        0
    }
    fn key(&self) -> PoolKey {
        KEY
    }
    fn retire_at(&self) -> Option<Instant> {
        None
    }
    fn exchanges(&self) -> u64 {
        0
    }
}

fn books(size: usize) -> Books<Connection> {
    Books::new(Limits {
        size,
        min_idle: 0,
        idle_timeout: None,
        learn_idle_timeout: true,
        max_exchanges: None,
        connect_parallel: size,
    })
}

/// Opens a connection for a session, and lets others join it.
fn open_shared(books: &mut Books<Connection>) {
    let before = slots(books);
    books.start_connect();
    books.connected_and_lent();
    books.share();
    assert_eq!(slots(books), [0, before[1], before[2] + 1, before[3]]);
}

/// Slots by what holds them: connecting, leased, shared, closing. Nothing is idle here.
fn slots(books: &Books<Connection>) -> [usize; 4] {
    let slots = [
        books.connecting(),
        books.leased(),
        books.shared(),
        books.closing(),
    ];
    assert_eq!(books.idle(), 0);
    assert_eq!(
        books.occupied(),
        slots.iter().sum::<usize>(),
        "a slot is lost"
    );
    books.check_invariants(books.limits().size);
    slots
}

#[test]
fn sharing_turns_a_lease_into_a_shared_slot() {
    let mut books = books(2);
    books.start_connect();
    books.connected_and_lent();
    assert_eq!((slots(&books), books.load()), ([0, 1, 0, 0], 1));
    books.share();
    assert_eq!((slots(&books), books.load()), ([0, 0, 1, 0], 1));
    assert!(books.can_connect());
    open_shared(&mut books);
    assert!(books.is_full() && !books.can_connect());
}

#[test]
fn a_shared_connection_keeps_its_slot_until_its_end_is_complete() {
    let mut books = books(2);
    open_shared(&mut books);
    open_shared(&mut books);
    books.retire_shared(true);
    assert_eq!((slots(&books), books.load()), ([0, 0, 1, 1], 1));
    assert!(books.is_full(), "the service still has it");
    books.slot_freed();
    assert_eq!(slots(&books), [0, 0, 1, 0]);
    assert!(books.can_connect());
}

#[test]
fn a_shared_connection_that_the_service_ended_frees_its_slot_at_once() {
    let mut books = books(1);
    open_shared(&mut books);
    books.retire_shared(false);
    assert_eq!((slots(&books), books.load()), ([0, 0, 0, 0], 0));
    open_shared(&mut books);
}
