//! What is asked of a service and what it says: the values that go in and come out, and no rule.

use super::Time;
use super::health::Cause;

/// Names a target for as long as it, or a request on it, lives; never names another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    pub(super) index: usize,
    pub(super) serial: u64,
}

/// A request's place in the order of arrival; kept when it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub(super) u64);

impl Ticket {
    pub(super) const FIRST: Self = Self(0);
    pub(super) const LAST: Self = Self(u64::MAX);
}

/// Which requests go first. Lower is earlier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Before all others.
    High,
    /// As most are.
    #[default]
    Normal,
    /// After all others; the first to be refused.
    Low,
}

impl Class {
    pub(super) const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Its place in the order.
    pub ticket: Ticket,
    /// Targets that it goes to last: those it has failed on, or those it is not for.
    pub avoid: &'a [TargetKey],
    /// The target that it belongs to, see `own`.
    pub own: Option<TargetKey>,
    /// What requests that belong together have in common, where the service's balance goes by it.
    pub hash: Option<u64>,
    /// It was admitted before, and is not refused.
    pub is_again: bool,
    /// How early it is served.
    pub class: Class,
    /// When nobody waits for it any more.
    pub deadline: Time,
    /// What it takes up in memory while it waits.
    pub bytes: u64,
}

/// Why a request is not taken in, or not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too many requests wait, or too many bytes.
    QueueFull,
    /// It could not be answered in its time.
    Late {
        /// How long the queue is expected to take.
        wait: Time,
    },
}

/// The answer to [`super::Service::seek`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// A place on this target is taken for the request.
    Placed(TargetKey),
    /// The request is in the queue; [`super::Service::next`] will name it, unless [`super::Service::cancel`] comes first.
    Waiting,
    /// It is not taken in; nothing was changed.
    Refused(Refusal),
}

/// What is to be done for a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A place on this target is taken for it.
    Granted(Ticket, TargetKey),
    /// It is out of the queue, and is to be told why.
    Shed(Ticket, Refusal),
}

/// What happened to a target that others may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// No connection can be made; it is set aside for a while.
    Unreachable(TargetKey),
    /// It failed too often, and gets hardly any requests.
    Ejected(TargetKey, Cause),
    /// It has answered nothing for long while others do, and gets no requests until it does.
    Stalled(TargetKey),
    /// It is as good as the others again.
    Returned(TargetKey),
}

impl Notice {
    /// The target that it is about.
    pub fn key(self) -> TargetKey {
        match self {
            Self::Unreachable(key) | Self::Ejected(key, _) | Self::Stalled(key) | Self::Returned(key) => key,
        }
    }
}
