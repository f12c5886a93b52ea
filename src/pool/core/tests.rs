//! Shared connections: who joins which, and that every slot stays exact.

use super::*;

const KEY: PoolKey = PoolKey::SOLE;
const OTHER: PoolKey = PoolKey::new(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Connection {
    id: u64,
    key: PoolKey,
}

impl Handle for Connection {
    fn id(&self) -> u64 {
        self.id
    }
    fn key(&self) -> PoolKey {
        self.key
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
fn open_shared(books: &mut Books<Connection>, id: u64, key: PoolKey) {
    let before = slots(books);
    books.start_connect();
    books.connected_and_lent();
    books.share(Connection { id, key });
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

fn attached(books: &mut Books<Connection>, in_flight_max: usize) -> Option<u64> {
    books.attach(KEY, in_flight_max).map(|it| it.id)
}

#[test]
fn sharing_turns_a_lease_into_a_shared_slot() {
    let mut books = books(2);
    books.start_connect();
    books.connected_and_lent();
    assert_eq!((slots(&books), books.load()), ([0, 1, 0, 0], 1));
    books.share(Connection { id: 1, key: KEY });
    assert_eq!((slots(&books), books.load()), ([0, 0, 1, 0], 0));
    assert!(books.can_connect());
    open_shared(&mut books, 2, KEY);
    assert!(books.is_full() && !books.can_connect());
}

#[test]
fn sessions_join_the_connection_with_the_fewest_exchanges_up_to_the_bound() {
    let mut books = books(4);
    assert_eq!(attached(&mut books, 1), None, "nothing is shared yet");
    open_shared(&mut books, 1, KEY);
    assert_eq!(attached(&mut books, 3), Some(1));
    assert_eq!(attached(&mut books, 3), Some(1));
    open_shared(&mut books, 2, KEY);
    open_shared(&mut books, 9, OTHER);
    assert_eq!(attached(&mut books, 3), Some(2), "0 are fewer than 2");
    assert_eq!(attached(&mut books, 3), Some(2), "1 is fewer than 2");
    let last: Vec<_> = (0..2).map(|_| attached(&mut books, 3)).collect();
    assert!(last.contains(&Some(1)) && last.contains(&Some(2)));
    assert_eq!(books.load(), 6);
    assert_eq!(
        attached(&mut books, 3),
        None,
        "both are full, and the third connection has another key"
    );
    assert_eq!(books.attach(OTHER, 3).map(|it| it.id), Some(9));
    assert_eq!(attached(&mut books, 4), Some(1), "a greater bound");
    assert_eq!((slots(&books), books.load()), ([0, 0, 3, 0], 8));
}

#[test]
fn a_session_that_leaves_makes_room_on_its_connection() {
    let mut books = books(2);
    open_shared(&mut books, 1, KEY);
    open_shared(&mut books, 2, KEY);
    while attached(&mut books, 2).is_some() {}
    assert_eq!(books.load(), 4);
    books.detach(2);
    assert_eq!((slots(&books), books.load()), ([0, 0, 2, 0], 3));
    assert_eq!(attached(&mut books, 2), Some(2));
    assert_eq!(attached(&mut books, 2), None);
    books.detach(7);
    assert_eq!(books.load(), 4, "a connection that is not shared");
}

#[test]
fn a_shared_connection_keeps_its_slot_until_its_end_is_complete() {
    let mut books = books(2);
    open_shared(&mut books, 1, KEY);
    open_shared(&mut books, 2, KEY);
    for _ in 0..3 {
        books.attach(KEY, 2);
    }
    assert_eq!(books.retire_shared(1, true), Some(2));
    assert_eq!((slots(&books), books.load()), ([0, 0, 1, 1], 1));
    assert!(books.is_full(), "the service still has it");
    assert_eq!(books.retire_shared(1, true), None, "it is out already");
    assert_eq!(slots(&books), [0, 0, 1, 1]);
    books.detach(1);
    assert_eq!(books.load(), 1, "its sessions are not others'");
    books.slot_freed();
    assert_eq!(slots(&books), [0, 0, 1, 0]);
    assert!(books.can_connect());
}

#[test]
fn a_shared_connection_that_the_service_ended_frees_its_slot_at_once() {
    let mut books = books(1);
    open_shared(&mut books, 1, KEY);
    books.attach(KEY, 8);
    assert_eq!(books.retire_shared(1, false), Some(1));
    assert_eq!((slots(&books), books.load()), ([0, 0, 0, 0], 0));
    assert_eq!(attached(&mut books, 8), None);
    open_shared(&mut books, 2, KEY);
    assert_eq!(attached(&mut books, 8), Some(2));
}
