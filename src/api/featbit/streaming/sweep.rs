//! One coarse clock for all streams of a worker, instead of timers for each.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use tokio::sync::Notify;

/// How often [`Sweep::tick`] is to be called, in a second.
const TICKS_PER_SECOND: u32 = 4;

/// Silence after which a client is asked whether it is there. SDKs ping every 10 to 18 s, so that this is for others.
const ASK_AFTER: u32 = ticks(60);
/// Silence after which it is taken for gone.
const SILENT_AFTER: u32 = ticks(120);
/// Time without a byte taken after which a client is too slow.
const SLOW_AFTER: u32 = ticks(30);
/// How long a client waits for data that are not there.
const WAIT_MAX: u32 = ticks(10);

const fn ticks(seconds: u32) -> u32 {
    seconds * TICKS_PER_SECOND
}

/// What the sweep wants of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// Nothing.
    None,
    /// Ask whether the client is there.
    Ask,
    /// End: it is not there.
    EndSilent,
    /// End: it takes nothing.
    EndSlow,
    /// End: the data it waits for did not come.
    EndWaiting,
    /// End: the process is stopping.
    EndDraining,
}

/// What a stream tells of itself.
#[derive(Debug)]
pub(super) struct Pulse {
    clock: Rc<Cell<u32>>,
    heard_at: Cell<u32>,
    /// When the client last took a byte of what is being sent; none while nothing is.
    sending_at: Cell<Option<u32>>,
    /// Since when it waits for data.
    waiting_at: Cell<Option<u32>>,
    was_asked: Cell<bool>,
    order: Cell<Order>,
    changed: Notify,
}

impl Pulse {
    /// Something came from the client.
    pub(super) fn heard(&self) {
        self.heard_at.set(self.clock.get());
        self.was_asked.set(false);
    }

    /// The client took some bytes; or nothing more is to be sent.
    pub(super) fn sending(&self, is_sending: bool) {
        self.sending_at.set(is_sending.then(|| self.clock.get()));
    }

    /// The client waits for data; or does not any more.
    pub(super) fn waiting(&self, is_waiting: bool) {
        if !is_waiting {
            self.waiting_at.set(None);
        } else if self.waiting_at.get().is_none() {
            self.waiting_at.set(Some(self.clock.get()));
        }
    }

    /// Waits for an order and takes it.
    pub(super) async fn order(&self) -> Order {
        loop {
            let order = self.order.replace(Order::None);
            if order != Order::None {
                return order;
            }
            self.changed.notified().await;
        }
    }

    /// Waits until the client is too slow, or not there, to be sent anything more. The order stays.
    pub(super) async fn lost(&self) {
        while !matches!(self.order.get(), Order::EndSlow | Order::EndSilent) {
            self.changed.notified().await;
        }
    }

    fn give(&self, order: Order) {
        self.order.set(order);
        self.changed.notify_one();
    }

    fn sweep(&self, now: u32) {
        let past = |since: u32| now.wrapping_sub(since);
        if !matches!(self.order.get(), Order::None | Order::Ask) {
            return;
        }
        let silence = past(self.heard_at.get());
        if self
            .sending_at
            .get()
            .is_some_and(|since| past(since) > SLOW_AFTER)
        {
            self.give(Order::EndSlow);
        } else if self.waiting_at.get().is_some_and(|since| past(since) > WAIT_MAX) {
            self.give(Order::EndWaiting);
        } else if silence > SILENT_AFTER {
            self.give(Order::EndSilent);
        } else if silence > ASK_AFTER && !self.was_asked.replace(true) {
            self.give(Order::Ask);
        }
    }
}

/// The streams of one worker.
#[derive(Debug, Default)]
pub struct Sweep {
    clock: Rc<Cell<u32>>,
    all: RefCell<Vec<Weak<Pulse>>>,
    ending: Cell<bool>,
}

impl Sweep {
    /// Watches one more stream.
    pub(super) fn watch(&self) -> Rc<Pulse> {
        let pulse = Rc::new(Pulse {
            clock: Rc::clone(&self.clock),
            heard_at: Cell::new(self.clock.get()),
            sending_at: Cell::new(None),
            waiting_at: Cell::new(None),
            was_asked: Cell::new(false),
            order: Cell::new(Order::None),
            changed: Notify::new(),
        });
        self.all.borrow_mut().push(Rc::downgrade(&pulse));
        if self.ending.get() {
            pulse.give(Order::EndDraining);
        }
        pulse
    }

    /// A quarter of a second has passed.
    pub fn tick(&self) {
        let now = self.clock.get().wrapping_add(1);
        self.clock.set(now);
        self.all.borrow_mut().retain(|pulse| match pulse.upgrade() {
            Some(pulse) => {
                pulse.sweep(now);
                true
            }
            None => false,
        });
    }

    /// Ends all streams, and those that come: the process is stopping.
    pub fn end_all(&self) {
        self.ending.set(true);
        for pulse in self.all.borrow().iter().filter_map(Weak::upgrade) {
            pulse.give(Order::EndDraining);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks until there is an order, which is taken; none within ten minutes.
    fn next(sweep: &Sweep, pulse: &Pulse) -> (u32, Order) {
        for n in 1..=ticks(600) {
            sweep.tick();
            let order = pulse.order.replace(Order::None);
            if order != Order::None {
                return (n, order);
            }
        }
        (0, Order::None)
    }

    #[test]
    fn a_silent_client_is_asked_and_then_given_up() {
        let sweep = Sweep::default();
        let pulse = sweep.watch();
        assert_eq!(next(&sweep, &pulse), (ASK_AFTER + 1, Order::Ask));
        pulse.heard();
        assert_eq!(next(&sweep, &pulse), (ASK_AFTER + 1, Order::Ask));
        let rest = SILENT_AFTER - ASK_AFTER;
        assert_eq!(next(&sweep, &pulse), (rest, Order::EndSilent));
    }

    #[test]
    fn a_client_that_takes_nothing_is_too_slow() {
        let sweep = Sweep::default();
        let pulse = sweep.watch();
        pulse.sending(true);
        for _ in 0..SLOW_AFTER {
            sweep.tick();
        }
        pulse.sending(true);
        pulse.heard();
        assert_eq!(next(&sweep, &pulse), (SLOW_AFTER + 1, Order::EndSlow));
        let pulse = sweep.watch();
        pulse.sending(true);
        pulse.sending(false);
        assert_eq!(next(&sweep, &pulse).1, Order::Ask);
    }

    #[test]
    fn a_client_waits_for_data_no_longer_than_may_be() {
        let sweep = Sweep::default();
        let pulse = sweep.watch();
        pulse.waiting(true);
        sweep.tick();
        pulse.waiting(true);
        assert_eq!(next(&sweep, &pulse), (WAIT_MAX, Order::EndWaiting));
    }

    #[test]
    fn the_end_is_for_all() {
        let sweep = Sweep::default();
        let pulse = sweep.watch();
        drop(sweep.watch());
        sweep.end_all();
        assert_eq!(pulse.order.get(), Order::EndDraining);
        assert_eq!(sweep.watch().order.get(), Order::EndDraining);
        sweep.tick();
        assert_eq!(sweep.all.borrow().len(), 1, "what is gone is forgotten");
    }
}
