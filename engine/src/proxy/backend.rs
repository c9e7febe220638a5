//! One service as the gateway serves it: its queue and places ([`crate::dispatch`]) joined to what dispatch
//! does not know, namely tasks that wait on any worker, addresses and counts.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use http::header::HeaderMap;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::common::Common;
use super::place::Place;
use super::policy::Policy;
use super::revisions::{self, Avoid, Dealer, Figures};
use super::sticky;
use super::target::Target;
use crate::chance::{self, Chance};
use crate::dispatch::{self, Budget, Next, Notice, Outcome, Refusal, Service, TargetInfo, TargetKey, Ticket, Time};
use crate::observe::events::{Event, Kind};
use crate::observe::figures::Counted;
use crate::sync::{Count, lock};
use crate::table;

/// One service: places, queue, targets, counts. All workers share it, so that its queue is one queue.
pub struct Backend {
    /// Requests that came in.
    pub requests: Count,
    /// Requests that got an answer of the gateway's own because no instance gave one, or a broken-off answer.
    pub failures: Count,
    /// What Prometheus is told.
    pub counted: Arc<Counted>,
    pub(super) common: Arc<Common>,
    dealer: Dealer,
    copied: Dealer,
    /// Where copies of its requests go; not kept there by it, for two services may copy to each other.
    copies_to: Mutex<Weak<Self>>,
    /// Copies of other services' requests that are on their way here.
    pub(super) copies_open: Count,
    /// Requests that were to be copied elsewhere, and could not be or were too many.
    pub copies_left_out: Count,
    core: Mutex<Core>,
}

/// How a request that waits hears of its place.
type Waiter = oneshot::Sender<Result<Place, Refusal>>;

/// What changes, under one lock: a request that is told to wait can't be granted a place before its sender is
/// where the grant looks for it.
pub(super) struct Core {
    policy: Arc<Policy>,
    pub(super) service: Service,
    pub(super) budget: Budget,
    pub(super) hedges: Budget,
    pub(super) chance: Chance,
    targets: BTreeMap<TargetKey, Arc<Target>>,
    /// Of each revision that the table knows of.
    revisions: BTreeMap<String, Arc<Figures>>,
    pub(super) waiters: HashMap<Ticket, Waiter>,
    /// When the task that wakes the queue for targets set aside is to run; `None`: there is no such task.
    wake: Option<Instant>,
    told_no_target: bool,
}

impl Backend {
    /// A service as the table says, still without targets.
    pub fn new(common: Arc<Common>, name: &str, backend: &table::Backend) -> Arc<Self> {
        Arc::new(Self {
            requests: Count::default(),
            failures: Count::default(),
            counted: Arc::new(Counted::new(name)),
            common,
            dealer: Dealer::default(),
            copied: Dealer::default(),
            copies_to: Mutex::default(),
            copies_open: Count::default(),
            copies_left_out: Count::default(),
            core: Mutex::new(Core {
                policy: Arc::new(backend.into()),
                service: Service::new(backend.into(), chance::seed()),
                budget: Budget::default(),
                hedges: Budget::default(),
                chance: Chance::new(chance::seed()),
                targets: BTreeMap::new(),
                revisions: BTreeMap::new(),
                waiters: HashMap::new(),
                wake: None,
                told_no_target: false,
            }),
        })
    }

    /// "application/service".
    pub fn name(&self) -> &str {
        &self.counted.service
    }

    /// Follows the table: new targets get requests, save those whose process `has_exited`; those it does not name get
    /// none from now on.
    pub fn follow(self: &Arc<Self>, backend: &table::Backend, has_exited: impl Fn(&table::Target) -> bool) {
        let mut core = self.core();
        core.policy = Arc::new(backend.into());
        core.service.set_policy(backend.into());
        // One that is tried is kept in mind while its instances come and go.
        let named = |revision: &String| {
            backend.targets.iter().any(|target| target.revision == *revision)
                || backend.split.iter().any(|share| share.revision == *revision)
        };
        core.revisions.retain(|revision, _| named(revision));
        let gone: Vec<TargetKey> = core
            .targets
            .iter()
            .filter(|(_, target)| !backend.targets.iter().any(|wanted| target.is(wanted, backend.protocol)))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            core.drop_target(key);
        }
        for wanted in &backend.targets {
            let known = core.targets.values().any(|target| target.is(wanted, backend.protocol));
            if !known && !has_exited(wanted) {
                let figures = Arc::clone(core.revisions.entry(wanted.revision.clone()).or_default());
                let target = Target::new(wanted, backend.protocol, figures);
                self.common.accounts.remember(&target);
                let info = TargetInfo { name: dispatch::hash(wanted.id.as_bytes()), weight: wanted.weight };
                let key = core.service.add(info, self.common.now());
                core.targets.insert(key, target);
                core.told_no_target = false;
            }
        }
        drop(core);
        self.common.told_retired();
        self.change(self.common.now(), |_| {});
    }

    /// Sends nothing more to an instance whose process is gone.
    pub fn drop_exited(self: &Arc<Self>, id: &str, generation: u64) {
        {
            let mut core = self.core();
            let found = core.targets.iter().find(|(_, target)| target.id == id && target.generation == generation);
            let Some(key) = found.map(|(key, _)| *key) else { return };
            core.drop_target(key);
        }
        self.common.told_retired();
        self.change(self.common.now(), |_| {});
    }

    /// A ticket for a request that has just arrived, and what it is held to.
    pub fn arrive(&self, now: Instant) -> (Ticket, Arc<Policy>) {
        self.requests.more();
        let now = self.common.at(now);
        let mut core = self.core();
        core.budget.deposit(now);
        core.hedges.deposit(now);
        (core.service.ticket(), Arc::clone(&core.policy))
    }

    /// Where a new request belongs, and where it had rather not go: to targets of other revisions than the one it
    /// is for. A header decides that first, then the target that its cookie names, then the shares.
    pub fn beside(&self, policy: &Policy, headers: &HeaderMap) -> Avoid {
        let split = &policy.split;
        let mark = policy.sticky.as_ref().and_then(|sticky| sticky::cookie(&sticky.cookie, headers));
        if split.is_empty() && mark.is_none() {
            return Avoid::default();
        }
        let core = self.core();
        let own = mark.and_then(|mark| core.targets.iter().find(|(_, target)| target.mark.as_bytes() == mark));
        if split.is_empty() {
            return Avoid::others(own.map(|(key, _)| *key), Vec::new());
        }
        let named =
            |revision: &str| split.iter().find(|share| share.revision == revision).map(|share| &*share.revision);
        let chosen = match (revisions::asked_for(split, headers), own) {
            (Some(revision), _) => Some(revision),
            (None, Some((_, target))) => named(&target.revision),
            (None, None) => self.dealer.deal(split),
        };
        let is_for = |target: &Target| named(&target.revision) == chosen;
        let own = own.filter(|(_, target)| is_for(target)).map(|(key, _)| *key);
        let others = core.targets.iter().filter(|(_, target)| !is_for(target)).map(|(key, _)| *key).collect();
        Avoid::others(own, others)
    }

    /// Copies of its requests go to this service from now on.
    pub fn copy_to(&self, other: Option<&Arc<Self>>) {
        *lock(&self.copies_to) = other.map(Arc::downgrade).unwrap_or_default();
    }

    /// Where the next request is to be copied to, if it is one of those: of each hundred so many.
    pub fn copies_to(&self, percent: f64) -> Option<Arc<Self>> {
        if self.copied.takes(percent) { lock(&self.copies_to).upgrade() } else { None }
    }

    /// Requests that wait for a place.
    pub fn waiting(&self) -> usize {
        self.core().service.waiting()
    }

    /// What is counted of each revision, by its name.
    pub fn revisions(&self) -> BTreeMap<String, Arc<Figures>> {
        self.core().revisions.clone()
    }

    /// The targets that may get requests, by name.
    pub fn targets(&self) -> Vec<Arc<Target>> {
        let mut targets: Vec<_> = self.core().targets.values().cloned().collect();
        targets.sort_by(|a, b| (&a.id, a.generation).cmp(&(&b.id, b.generation)));
        targets
    }

    /// Requests at a time that each target may have now, by its name; those that may have any number are left out.
    pub fn places(&self) -> BTreeMap<String, u64> {
        let (core, now) = (self.core(), self.common.now());
        let limits = core.targets.iter().filter_map(|(key, target)| Some((target, core.service.limit_of(*key, now)?)));
        limits.map(|(target, limit)| (target.id.clone(), limit.into())).collect()
    }

    /// A target has said how many requests it has in flight, from whomever.
    pub(super) fn reported(&self, key: TargetKey, in_flight: u32) {
        self.core().service.reported(key, in_flight);
    }

    /// A connection to a target was made.
    pub(super) fn connected(self: &Arc<Self>, key: TargetKey) {
        self.change(self.common.now(), |core| core.service.connected(key));
    }

    /// A target has begun to answer a request.
    pub(super) fn begun(self: &Arc<Self>, key: TargetKey, now: Time) {
        let returns = self.core().service.begun(key, now);
        if returns {
            self.change(now, |_| {});
        }
    }

    /// A place is free again, and this became of its request; `has_begun`: its answer had.
    pub(super) fn finished(self: &Arc<Self>, key: TargetKey, has_begun: bool, outcome: &Outcome, now: Time) {
        self.change(now, |core| core.service.finished(key, has_begun, outcome, now));
    }

    /// Tells the node.
    pub(super) fn tell(&self, kind: Kind, target: Option<&Target>, reason: &str) {
        self.common.events.tell(&Event {
            kind,
            service: self.name(),
            instance: target.map(|target| target.id.as_str()),
            generation: target.map(|target| target.generation),
            reason,
        });
    }

    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    pub(super) fn place(self: &Arc<Self>, core: &Core, key: TargetKey, now: Time) -> Place {
        let among = core.service.in_flight(key);
        Place::new(Arc::clone(self), key, Arc::clone(&core.targets[&key]), among, now)
    }

    /// Changes something, and does all that follows from it: hands free places to those who wait, tells the node what
    /// was noticed, and sees to it that time alone changes what it can.
    fn change(self: &Arc<Self>, now: Time, change: impl FnOnce(&mut Core)) {
        let mut core = self.core();
        change(&mut core);
        while let Some(next) = core.service.next(now) {
            let (ticket, word) = match next {
                Next::Granted(ticket, key) => (ticket, Ok(self.place(&core, key, now))),
                Next::Shed(ticket, refusal) => (ticket, Err(refusal)),
            };
            let waiter = core.waiters.remove(&ticket);
            // Outside the lock, since a waiter that is just going makes this give the place back.
            drop(core);
            if let Some(waiter) = waiter {
                drop(waiter.send(word));
            }
            core = self.core();
        }
        let noticed = core.noticed();
        let wake = core.plan_wake(now);
        drop(core);
        for (notice, target) in noticed {
            self.tell_of(notice, &target);
        }
        if let Some(at) = wake {
            self.wake_at(at);
        }
    }

    fn tell_of(&self, notice: Notice, target: &Target) {
        let (kind, reason) = match notice {
            Notice::Unreachable(_) => (Kind::TargetSuspect, target.why()),
            Notice::Stalled(_) => (Kind::TargetSuspect, "it answers nothing while others do".into()),
            Notice::Ejected(_, dispatch::Cause::Consecutive) => {
                self.counted.ejected("consecutive");
                (Kind::TargetEjected, "it failed five requests in a row".into())
            }
            Notice::Ejected(_, dispatch::Cause::Share) => {
                self.counted.ejected("share");
                (Kind::TargetEjected, "it fails far more requests than the others".into())
            }
            Notice::Returned(_) => (Kind::TargetReturned, "it answers again".into()),
        };
        self.tell(kind, Some(target), &reason);
    }

    /// Looks at the queue again at a moment that [`Core::plan_wake`] gave.
    pub(super) fn wake_at(self: &Arc<Self>, at: Instant) {
        let backend = Arc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep_until(at).await;
            backend.change(backend.common.now(), |core| {
                if core.wake == Some(at) {
                    core.wake = None;
                }
            });
        });
    }
}

impl Core {
    /// Puts a sender where a grant finds it; true when it is news that the service has no target.
    pub(super) fn wait(&mut self, ticket: Ticket) -> (oneshot::Receiver<Result<Place, Refusal>>, bool) {
        let (sender, receiver) = oneshot::channel();
        self.waiters.insert(ticket, sender);
        let is_news = self.service.serving() == 0 && !std::mem::replace(&mut self.told_no_target, true);
        (receiver, is_news)
    }

    /// What dispatch has noticed of targets.
    fn noticed(&mut self) -> Vec<(Notice, Arc<Target>)> {
        let notices = self.service.notices();
        notices.into_iter().filter_map(|notice| Some((notice, self.targets.get(&notice.key())?.clone()))).collect()
    }

    /// When the queue is to be looked at again because time alone changes something, if that is not planned yet.
    pub(super) fn plan_wake(&mut self, now: Time) -> Option<Instant> {
        let ahead = self.service.wake_at(now)?.saturating_sub(now);
        let at = Instant::now() + ahead;
        if self.wake.is_some_and(|planned| planned <= at) {
            return None;
        }
        self.wake = Some(at);
        Some(at)
    }

    fn drop_target(&mut self, key: TargetKey) {
        self.service.remove(key);
        if let Some(target) = self.targets.remove(&key) {
            target.retire();
        }
    }
}
