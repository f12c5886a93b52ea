//! What a generator makes up, cut at random and at every byte.

use super::any::{self, Found};
use super::{LIMITS, generate};

const SEEDS: u64 = 3000;

#[test]
fn generated_requests_are_read_as_redis_does_however_they_are_cut() {
    let [mut wholes, mut blanks, mut violations] = [0; 3];
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let sent = generate::requests(&mut random);
        let cuts = generate::cuts(&mut random, sent.len());
        for found in any::check_requests(LIMITS, &sent, &cuts) {
            match found {
                Found::Whole(_) => wholes += 1,
                Found::Blank(_) => blanks += 1,
                Found::Violation(_) => violations += 1,
            }
        }
    }
    assert!(
        wholes > SEEDS && blanks > SEEDS / 20 && violations > SEEDS / 10,
        "the seeds reach all: {wholes} {blanks} {violations}"
    );
}

#[test]
fn generated_replies_are_read_as_they_were_written_however_they_are_cut() {
    let [mut sound, mut broken] = [0; 2];
    for seed in 0..SEEDS {
        let mut random = fastrand::Rng::with_seed(seed);
        let sent = generate::replies(&mut random);
        let cuts = generate::cuts(&mut random, sent.len());
        let (ends, is_broken) = any::check_replies(&sent, &cuts);
        sound += u64::from(!is_broken && ends.last() == Some(&sent.len()));
        broken += u64::from(is_broken);
    }
    assert!(
        sound > SEEDS / 2 && broken > SEEDS / 50,
        "the seeds reach all: {sound} {broken}"
    );
}
