//! What answers are made of here: caches and local evaluation.

use super::super::cells::{AGE, EVALUATION, Totals};
use super::super::labels::{
    CacheName, CacheResult, Engine, Evaluation, Eviction, FlagResult, Refresh, Trigger,
};
use super::{Declare, total};

/// The results that a cache's requests can have.
const fn cache_results(cache: CacheName) -> &'static [CacheResult] {
    match cache {
        CacheName::Vardata | CacheName::Fb => &[
            CacheResult::Hit,
            CacheResult::Stale,
            CacheResult::Miss,
            CacheResult::Coalesced,
            CacheResult::Bypass,
        ],
        CacheName::Flags => &CacheResult::ALL,
        CacheName::Negative => &[CacheResult::Hit, CacheResult::Miss],
    }
}

pub(super) fn cache_requests(on: &Declare<'_>) {
    on.counter(
        "flagside_cache_requests_total",
        "Look-ups, by cache and result.",
        &["cache", "result"],
        |parts, out| {
            for cache in parts.caches() {
                let shown = cache_results(cache);
                let seen = |result| total(parts, |worker| worker.cache_requests(cache, result));
                // What is not foreseen counts as a miss, which every cache has.
                let mut odd: u64 = CacheResult::ALL
                    .into_iter()
                    .filter(|result| !shown.contains(result))
                    .map(seen)
                    .sum();
                for result in shown {
                    let extra = if *result == CacheResult::Miss {
                        std::mem::take(&mut odd)
                    } else {
                        0
                    };
                    out.number(&[cache.as_str(), result.as_str()], seen(*result) + extra);
                }
            }
        },
    );
    on.counter(
        "flagside_cache_refreshes_total",
        "Refreshes in the background, by what they brought.",
        &["cache", "result"],
        |parts, out| {
            for cache in parts.caches().filter(|cache| *cache != CacheName::Negative) {
                for result in Refresh::ALL {
                    out.number(
                        &[cache.as_str(), result.as_str()],
                        parts.cache.refreshes(cache, result),
                    );
                }
            }
        },
    );
    on.histogram(
        "flagside_cache_stale_age_seconds",
        "How long past its freshness a stored response was when it was used.",
        &["cache"],
        |parts, out| {
            for cache in parts.caches().filter(|cache| *cache != CacheName::Negative) {
                let mut totals = Totals::new(&AGE);
                parts
                    .workers
                    .iter()
                    .for_each(|worker| totals.add(&AGE, worker.stale_age(cache)));
                out.histogram(&[cache.as_str()], &totals);
            }
        },
    );
}

pub(super) fn cache_sizes(on: &Declare<'_>) {
    on.gauge("flagside_cache_entries", "Entries.", &["cache"], |parts, out| {
        for cache in parts.caches() {
            out.number(&[cache.as_str()], parts.cache_reading(cache).entries);
        }
    });
    on.gauge(
        "flagside_cache_weight_bytes",
        "Weight of the entries.",
        &["cache"],
        |parts, out| {
            for cache in parts.caches() {
                out.number(&[cache.as_str()], parts.cache_reading(cache).weight_bytes);
            }
        },
    );
    on.gauge(
        "flagside_cache_max_weight_bytes",
        "Weight that the entries may have.",
        &["cache"],
        |parts, out| {
            for cache in parts.caches() {
                out.number(&[cache.as_str()], parts.cache_reading(cache).max_weight_bytes);
            }
        },
    );
    on.counter(
        "flagside_cache_evictions_total",
        "Entries that left a cache, by why.",
        &["cache", "cause"],
        |parts, out| {
            for cache in parts.caches() {
                for cause in Eviction::ALL {
                    out.number(
                        &[cache.as_str(), cause.as_str()],
                        parts.cache.evictions(cache, cause),
                    );
                }
            }
        },
    );
}

pub(super) fn evaluation(on: &Declare<'_>) {
    on.counter(
        "flagside_evaluations_total",
        "Answers computed here, by why and how well.",
        &["engine", "trigger", "result"],
        |parts, out| {
            for engine in parts.engines() {
                for trigger in Trigger::ALL {
                    for result in Evaluation::ALL {
                        let seen = total(parts, |worker| {
                            worker.engine(engine).evaluations[trigger.index()][result.index()].get()
                        });
                        out.number(&[engine.as_str(), trigger.as_str(), result.as_str()], seen);
                    }
                }
            }
        },
    );
    on.histogram(
        "flagside_evaluation_duration_seconds",
        "How long computing an answer took.",
        &["engine"],
        |parts, out| {
            for engine in parts.engines() {
                let mut totals = Totals::new(&EVALUATION);
                let workers = parts.workers.iter();
                workers.for_each(|worker| totals.add(&EVALUATION, &worker.engine(engine).duration));
                out.histogram(&[engine.as_str()], &totals);
            }
        },
    );
    on.counter(
        "flagside_evaluated_flags_total",
        "Flags computed here, by what they gave.",
        &["engine", "result"],
        |parts, out| {
            for engine in parts.engines() {
                for result in FlagResult::ALL {
                    let seen = total(parts, |worker| worker.engine(engine).flags[result.index()].get());
                    out.number(&[engine.as_str(), result.as_str()], seen);
                }
            }
        },
    );
    on.counter(
        "flagside_evaluation_unfaithful_flags_total",
        "Flags computed here that only upstream can compute exactly.",
        &["engine"],
        |parts, out| {
            let engine = Engine::Amplitude;
            let seen = total(parts, |worker| worker.engine(engine).unfaithful_flags.get());
            out.number(&[engine.as_str()], seen);
        },
    );
}
