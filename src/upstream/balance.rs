//! Which of several endpoints carries the next exchange.
//!
//! Pure. The one with the least load for its weight; among equals, in turn.

/// An endpoint that could carry the next exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Its place in the list of endpoints.
    pub place: usize,
    /// Connections in use.
    pub load: usize,
    /// Its share, at least 1.
    pub weight: u32,
}

/// The least loaded candidate. `turn` goes up by one for each choice.
pub fn least_loaded(
    candidates: impl Iterator<Item = Candidate>,
    turn: usize,
    endpoints: usize,
) -> Option<usize> {
    candidates
        .min_by(|a, b| {
            // load / weight, compared without division.
            let left = (a.load as u64 + 1) * u64::from(b.weight);
            let right = (b.load as u64 + 1) * u64::from(a.weight);
            let rotate = |place: usize| (place + endpoints - turn % endpoints.max(1)) % endpoints;
            left.cmp(&right)
                .then_with(|| rotate(a.place).cmp(&rotate(b.place)))
        })
        .map(|candidate| candidate.place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(loads: &[usize], weights: &[u32], turn: usize) -> Option<usize> {
        let candidates = loads
            .iter()
            .zip(weights)
            .enumerate()
            .map(|(place, (&load, &weight))| Candidate {
                place,
                load,
                weight,
            });
        least_loaded(candidates, turn, loads.len())
    }

    #[test]
    fn the_least_loaded_is_chosen() {
        assert_eq!(choose(&[3, 1, 2], &[1, 1, 1], 0), Some(1));
        assert_eq!(choose(&[], &[], 0), None);
    }

    #[test]
    fn equals_are_chosen_in_turn() {
        let chosen: Vec<_> = (0..6)
            .map(|turn| choose(&[1, 1, 1], &[1, 1, 1], turn))
            .collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2].map(Some));
    }

    #[test]
    fn load_follows_weight() {
        let mut loads = [0, 0];
        for turn in 0..30 {
            if let Some(place) = choose(&loads, &[1, 2], turn) {
                loads[place] += 1;
            }
        }
        assert_eq!(loads, [10, 20]);
    }
}
