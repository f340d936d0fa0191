//! The order in which flags are evaluated (AE 10).

use crate::evaluate::quick_map::WordMap;

/// The dependencies of a flag set as numbers, and which flags cannot be ordered.
#[derive(Debug)]
pub(super) struct Order {
    /// Per flag the flags it depends on, in their order; unknown ones are left out.
    dependencies: Vec<Box<[u32]>>,
    /// Per flag whether a cycle is reached from it.
    cyclic: Vec<bool>,
    /// The order of all flags without cycle.
    all: Vec<u32>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum State {
    Unseen,
    OnPath,
    Placed,
}

impl Order {
    /// Orders flags, given by the numbers of their keys and, by number, the keys that each depends on.
    pub(super) fn new<'k>(index: &WordMap<u32>, dependencies: impl Iterator<Item = &'k [Box<str>]>) -> Self {
        let known = |names: &[Box<str>]| names.iter().filter_map(|name| index.get(name).copied()).collect();
        let dependencies: Vec<Box<[u32]>> = dependencies.map(known).collect();
        let n_flags = u32::try_from(dependencies.len()).unwrap_or(u32::MAX);
        let mut order = Self {
            cyclic: cyclic(&dependencies),
            dependencies,
            all: Vec::new(),
        };
        order.all = order.of(0..n_flags);
        order
    }

    /// The order of all flags; those that reach a cycle are left out.
    pub(super) fn all(&self) -> &[u32] {
        &self.all
    }

    /// Whether a cycle is reached from a flag.
    pub(super) fn is_cyclic(&self, flag: u32) -> bool {
        self.cyclic.get(flag as usize).copied().unwrap_or(true)
    }

    /// The order of the wanted flags and what they depend on; those that reach a cycle are left out.
    pub(super) fn of(&self, wanted: impl Iterator<Item = u32>) -> Vec<u32> {
        let mut placed = vec![false; self.dependencies.len()];
        let mut order = Vec::new();
        // Flags on the path, each with how many of its dependencies are done.
        let mut path: Vec<(u32, usize)> = Vec::new();
        for start in wanted {
            path.push((start, 0));
            while let Some((flag, done)) = path.last_mut() {
                let flag = *flag;
                if *done == 0 && (self.is_cyclic(flag) || placed[flag as usize]) {
                    path.pop();
                    continue;
                }
                if let Some(next) = self.dependencies[flag as usize].get(*done) {
                    *done += 1;
                    path.push((*next, 0));
                    continue;
                }
                placed[flag as usize] = true;
                order.push(flag);
                path.pop();
            }
        }
        order
    }
}

/// Which flags reach a cycle: what a search from each finds on its path, and everything above that.
fn cyclic(dependencies: &[Box<[u32]>]) -> Vec<bool> {
    let mut state = vec![State::Unseen; dependencies.len()];
    let mut cyclic = vec![false; dependencies.len()];
    for start in 0..dependencies.len() {
        if state[start] != State::Unseen {
            continue;
        }
        state[start] = State::OnPath;
        let mut path = vec![(start, 0)];
        while let Some((flag, done)) = path.last_mut() {
            let flag = *flag;
            if let Some(next) = dependencies[flag].get(*done) {
                let next = *next as usize;
                *done += 1;
                match state[next] {
                    State::Unseen => {
                        state[next] = State::OnPath;
                        path.push((next, 0));
                    }
                    // Everything on the path from here on is left again, and marked then.
                    State::OnPath => cyclic[flag] = true,
                    State::Placed => cyclic[flag] |= cyclic[next],
                }
                continue;
            }
            state[flag] = State::Placed;
            path.pop();
            if let Some((above, _)) = path.last() {
                cyclic[*above] |= cyclic[flag];
            }
        }
    }
    cyclic
}
