//! Rate limits: how many requests each client has left, with the generic cell rate algorithm (GCRA) of `governor`.
//!
//! A limit of N per second is a bucket of N requests that refills steadily. With fixed windows instead, a client could send N requests
//! at the end of one window and N more at the start of the next.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use governor::clock::{Clock, Reference};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use crate::rate::{Period, Rate};
use crate::server::Headers;

/// At most this many clients without tokens have a bucket of their own. At some 60 bytes each, they take a few megabytes.
const MAX_CLIENTS: usize = 65_536;

/// Pause between two searches for full buckets to drop, once there are [`MAX_CLIENTS`].
const SWEEP: Duration = Duration::from_secs(1);

/// A client, whose requests share one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// The owner of the token with this hash.
    Token([u8; 32]),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 network, by its first 64 bits: one client usually has a whole /64.
    V6(u64),
    /// All clients without tokens that came while [`MAX_CLIENTS`] others had buckets that were not full.
    Others,
}

impl Client {
    /// The client at an address.
    pub(super) fn at(address: IpAddr) -> Client {
        match address.to_canonical() {
            IpAddr::V4(address) => Client::V4(address),
            IpAddr::V6(address) => Client::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// What a client has left after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) rate: Rate,
    /// How many more requests the client may send at once.
    remaining: u32,
    /// The bucket is full again after this time.
    full_in: Duration,
}

/// The bucket was empty: the request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany {
    /// What the client has left: no requests.
    pub(super) left: Allowance,
    /// The client may send the next request after this time.
    wait: Duration,
}

impl Allowance {
    /// The headers that tell the client.
    pub(super) fn headers(&self) -> Headers {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let full_at = now.unwrap_or_default() + self.full_in;
        let header = |name, value: u64| (name, Cow::from(value.to_string()));
        vec![
            header("X-RateLimit-Limit", self.rate.requests.get().into()),
            header("X-RateLimit-Remaining", self.remaining.into()),
            header("X-RateLimit-Reset", whole_seconds(full_at)),
        ]
    }
}

impl TooMany {
    /// Seconds to wait, rounded up, so that a client that waits this long is let through.
    pub(super) fn retry_after(&self) -> u64 {
        whole_seconds(self.wait).max(1)
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Counts the requests of all clients.
#[derive(Default)]
pub(super) struct Limiters {
    /// One limiter for each rate: that of `--rate-limit`, and those of tokens.
    by_rate: RwLock<HashMap<Rate, Limiter<Uptime>>>,
}

impl Limiters {
    /// Counts a request of a client.
    pub(super) fn check(&self, client: Client, rate: Rate) -> Result<Allowance, TooMany> {
        let limiters = self.by_rate.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(limiter) = limiters.get(&rate) {
            return limiter.check(client);
        }
        drop(limiters);
        let mut limiters = self.by_rate.write().unwrap_or_else(PoisonError::into_inner);
        let limiter = limiters
            .entry(rate)
            .or_insert_with(|| Limiter::new(rate, Uptime(Instant::now())));
        limiter.check(client)
    }
}

/// Counts the requests of clients that all have the same rate.
struct Limiter<C: Clock> {
    rate: Rate,
    governor: RateLimiter<Asking, Buckets, C, StateInformationMiddleware>,
    /// All times in the buckets count from here.
    start: C::Instant,
}

impl<C: Clock> Limiter<C> {
    fn new(rate: Rate, clock: C) -> Limiter<C> {
        let quota = match rate.per {
            Period::Second => Quota::per_second(rate.requests),
            Period::Minute => Quota::per_minute(rate.requests),
        };
        let governor = RateLimiter::new(quota, Buckets::default(), clock);
        Limiter {
            rate,
            // Taken after the governor's own start, so that no client is told too early a time.
            start: governor.clock().now(),
            governor,
        }
    }

    fn check(&self, client: Client) -> Result<Allowance, TooMany> {
        let now = self.governor.clock().now();
        let asking = Asking {
            client,
            now: now.duration_since(self.start),
            full_at: Cell::default(),
        };
        let checked = self.governor.check_key(&asking);
        let allowance = |remaining| Allowance {
            rate: self.rate,
            remaining,
            full_in: asking.full_at.get().saturating_sub(asking.now).into(),
        };
        match checked {
            Ok(state) => Ok(allowance(state.remaining_burst_capacity())),
            Err(not_until) => Err(TooMany {
                left: allowance(0),
                wait: not_until.wait_time_from(now),
            }),
        }
    }
}

/// The governor's key: a client, and when it asks.
#[derive(Clone)]
struct Asking {
    client: Client,
    /// The time of the request, counted from the start.
    now: Nanos,
    /// Set to the time at which the bucket will be full. The governor does not report it.
    full_at: Cell<Nanos>,
}

impl PartialEq for Asking {
    fn eq(&self, other: &Asking) -> bool {
        self.client == other.client
    }
}

impl Eq for Asking {}

impl Hash for Asking {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.client.hash(state);
    }
}

/// For each client, the time at which its bucket will be full if no more requests come. The algorithm calls it the theoretical arrival
/// time. Full buckets need not be kept.
#[derive(Default)]
struct Buckets(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    full_at: HashMap<Client, Nanos>,
    /// When full buckets were last dropped.
    swept: Option<Nanos>,
}

impl Kept {
    /// Returns whose bucket a client uses: its own if there is room, else that of [`Client::Others`]. Owners of tokens always have
    /// room, since only the operator makes tokens.
    fn count_as(&mut self, client: Client, now: Nanos) -> Client {
        if matches!(client, Client::Token(_))
            || self.full_at.len() < MAX_CLIENTS
            || self.full_at.contains_key(&client)
        {
            return client;
        }
        if self.swept.is_none_or(|swept| now >= swept + SWEEP) {
            self.swept = Some(now);
            self.full_at.retain(|_, full_at| *full_at > now);
        }
        if self.full_at.len() < MAX_CLIENTS {
            client
        } else {
            Client::Others
        }
    }
}

impl StateStore for Buckets {
    type Key = Asking;

    fn measure_and_replace<T, F, E>(&self, asking: &Asking, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // A poisoned lock is fine: no code under it panics halfway through a change.
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = kept.count_as(asking.client, asking.now);
        let before = kept.full_at.get(&client).copied();
        asking.full_at.set(before.unwrap_or_default());
        let (outcome, full_at) = decide(before)?;
        asking.full_at.set(full_at);
        kept.full_at.insert(client, full_at);
        Ok(outcome)
    }
}

/// A monotonic clock.
struct Uptime(Instant);

impl Clock for Uptime {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    fn limiter(rate: &str) -> (Limiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limiter::new(rate.parse().unwrap(), clock.clone()), clock)
    }

    fn kept(limiter: Limiter<FakeRelativeClock>) -> usize {
        let buckets = limiter.governor.into_state_store();
        buckets.0.into_inner().unwrap().full_at.len()
    }

    fn client(n: u32) -> Client {
        Client::at(Ipv4Addr::from_bits(n).into())
    }

    #[test]
    fn what_is_left_and_when_it_is_all_back_is_right_at_every_request() {
        let (limiter, clock) = limiter("3/m");
        let told = |remaining, full_in| {
            Ok(Allowance {
                rate: "3/m".parse().unwrap(),
                remaining,
                full_in: Duration::from_secs(full_in),
            })
        };
        assert_eq!(limiter.check(client(1)), told(2, 20));
        clock.advance(Duration::from_secs(10));
        assert_eq!(limiter.check(client(1)), told(1, 30));
        assert_eq!(limiter.check(client(1)), told(0, 50));
        let refused = limiter.check(client(1)).unwrap_err();
        assert_eq!(Ok(refused.left), told(0, 50));
        assert_eq!(refused.retry_after(), 10);
        // Others are not touched by it.
        assert_eq!(limiter.check(client(2)), told(2, 20));
        // Too early, and then not: what was refused has not counted.
        clock.advance(Duration::from_millis(9_999));
        assert_eq!(limiter.check(client(1)).unwrap_err().retry_after(), 1);
        clock.advance(Duration::from_millis(1));
        assert_eq!(limiter.check(client(1)), told(0, 60));
        clock.advance(Duration::from_secs(60));
        assert_eq!(limiter.check(client(1)), told(2, 20));
    }

    #[test]
    fn an_ipv6_client_counts_by_its_network() {
        let at = |address: &str| Client::at(address.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:3:4:5:6"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:10.0.0.1"), at("10.0.0.1"));
        assert_ne!(at("10.0.0.1"), at("10.0.0.2"));
    }

    #[test]
    fn no_more_clients_are_kept_than_allowed_and_the_rest_share() {
        let (limiter, clock) = limiter("2/s");
        let most = MAX_CLIENTS as u32;
        for n in 0..most {
            assert_eq!(limiter.check(client(n)).unwrap().remaining, 1);
        }
        assert_eq!(limiter.check(client(most)).unwrap().remaining, 1);
        assert_eq!(limiter.check(client(most + 1)).unwrap().remaining, 0);
        assert!(limiter.check(client(most + 2)).is_err());
        // Who is known keeps what is his own.
        assert_eq!(limiter.check(client(0)).unwrap().remaining, 0);
        // So does who has a token, known or not.
        let token = Client::Token([0; 32]);
        assert_eq!(limiter.check(token).unwrap().remaining, 1);
        // Once they have all of it back, they need not be known.
        clock.advance(Duration::from_secs(2));
        assert_eq!(limiter.check(client(most + 2)).unwrap().remaining, 1);
        assert_eq!(kept(limiter), 1);
    }

    #[test]
    fn memory_is_bounded_however_many_come() {
        let (limiter, clock) = limiter("1000/s");
        for n in 0..3 * MAX_CLIENTS as u32 {
            assert_eq!(
                limiter.check(client(n)).is_ok(),
                n < MAX_CLIENTS as u32 + 1000
            );
            clock.advance(Duration::from_nanos(1));
        }
        assert_eq!(kept(limiter), MAX_CLIENTS + 1);
    }

    #[test]
    fn each_rate_counts_for_itself() {
        let limiters = Limiters::default();
        let (one, two) = ("1/m".parse().unwrap(), "2/m".parse().unwrap());
        assert!(limiters.check(client(1), one).is_ok());
        assert!(limiters.check(client(1), one).is_err());
        assert!(limiters.check(client(1), two).is_ok());
    }
}
