//! The same bytes cut in any way give the same answer.

use super::any::{self, Asked, Told, ask, tell};
use super::generate;
use super::*;

const SEEDS: u64 = 3_000;

#[test]
fn any_requests_are_found_however_they_are_cut() {
    let mut outcomes = [0; 3];
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let sent = generate::requests(&mut random);
        let mut data = vec![random.u8(..), random.u8(..), random.u8(..), random.u8(..)];
        data.extend_from_slice(&sent);
        any::check(&data);
        for asked in ask(LIMITS, &sent, &[], false) {
            outcomes[match asked {
                Asked::Whole(request) => match treatment(&request) {
                    Treatment::Share(_) => 0,
                    _ => 1,
                },
                _ => 2,
            }] += 1;
        }
    }
    assert!(outcomes.iter().all(|count| *count > 500), "{outcomes:?}");
}

#[test]
fn sound_requests_are_shared_and_found_one_by_one() {
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let requests: Vec<Vec<u8>> = (0..random.usize(1..8))
            .map(|_| generate::sound_request(&mut random))
            .collect();
        let sent = requests.concat();
        let cuts = generate::cuts(&mut random, sent.len());
        let expected: Vec<Asked> = requests.iter().cloned().map(Asked::Whole).collect();
        assert_eq!(
            ask(LIMITS, &sent, &cuts, random.bool()),
            expected,
            "seed {seed}"
        );
        for request in &requests {
            let shared = shared(request);
            assert_eq!(shared.armed, disarmed(request) != *request, "seed {seed}");
        }
    }
}

#[test]
fn sound_replies_are_found_one_by_one() {
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let rows = generate::replies(&mut random);
        let kinds: Vec<Kind> = rows.iter().map(|row| row.0).collect();
        let sent: Vec<u8> = rows.iter().flat_map(|row| row.1.clone()).collect();
        let seen = |row: &(Kind, Vec<u8>, bool)| {
            Told::Reply(if row.2 { row.1.clone() } else { Vec::new() })
        };
        let expected: Vec<Told> = rows.iter().map(seen).collect();
        let cuts = generate::cuts(&mut random, sent.len());
        assert_eq!(tell(&kinds, &sent, &cuts), expected, "seed {seed}");
    }
}

#[test]
fn broken_replies_are_the_same_however_they_are_cut() {
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let rows = generate::replies(&mut random);
        let mut data = vec![random.u8(..), random.u8(..), random.u8(..), random.u8(..)];
        for (_, bytes, _) in rows {
            data.extend_from_slice(&bytes);
        }
        let at = random.usize(4..data.len());
        data[at] = b"\r\n 0\0VAE"[random.usize(..8)];
        any::check(&data);
    }
}
