//! Whether what clients have seen fits one order of everything that happened, in which each request took effect between its beginning
//! and its end (linearizability, checked as Wing and Gong do it).

use std::collections::HashSet;
use std::hash::Hash;
use std::time::Instant;

/// An event, and when its request began and ended. One without an end was not answered: it may have happened, at any time since, or never.
#[derive(Clone, Copy, Debug)]
pub struct Operation<E> {
    pub start: Instant,
    pub end: Option<Instant>,
    pub event: E,
}

/// Whether there is an order that fits. Each list holds what one client did, in its order. `after` says what the state is after an event;
/// `None` if the event cannot happen then.
pub fn is_linearizable<S: Clone + Default + Eq + Hash, E: Copy>(
    clients: &[Vec<Operation<E>>],
    after: impl Fn(S, E) -> Option<S>,
) -> bool {
    // A client goes on behind a request that was not answered, so that one counts as a client of its own.
    let mut lists: Vec<Vec<Operation<E>>> = Vec::new();
    for client in clients {
        let (answered, open): (Vec<_>, Vec<_>) = client.iter().partition(|it| it.end.is_some());
        lists.push(answered);
        lists.extend(open.into_iter().map(|it| vec![it]));
    }
    let beginning = (vec![0; lists.len()], S::default());
    let (mut seen, mut left) = (HashSet::new(), vec![beginning]);
    while let Some((places, state)) = left.pop() {
        let next = |list: usize| lists[list].get::<usize>(places[list]);
        // What began after another one had ended cannot come before that.
        let ends = (0..lists.len()).filter_map(|it| next(it)?.end);
        let Some(first_end) = ends.min() else {
            return true;
        };
        for list in 0..lists.len() {
            let Some(operation) = next(list).filter(|it| it.start <= first_end) else {
                continue;
            };
            if let Some(state) = after(state.clone(), operation.event) {
                let mut places = places.clone();
                places[list] += 1;
                if seen.insert((places.clone(), state.clone())) {
                    left.push((places, state));
                }
            }
        }
    }
    false
}
