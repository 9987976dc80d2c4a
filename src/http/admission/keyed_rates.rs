//! Rate limits by key, and limits on open connections by address. Zero means no limit.

use std::any::Any;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Above this number of keys, keys at rest are removed. The removal visits every key, so it runs at most once a second.
const MANY_KEYS: usize = 10_000;

/// A token bucket for each key.
pub struct KeyedRate<K: Hash + Eq + Clone> {
    limiter: Option<DefaultKeyedRateLimiter<K>>,
    clock: DefaultClock,
    began: Instant,
    /// When keys were last removed, in seconds after `began`.
    tidied_s: AtomicU64,
}

impl<K: Hash + Eq + Clone> KeyedRate<K> {
    /// Allows `count` a second.
    pub fn per_second(count: u32) -> Self {
        Self::new(NonZeroU32::new(count).map(Quota::per_second))
    }

    /// Allows `count` a minute.
    pub fn per_minute(count: u32) -> Self {
        Self::new(NonZeroU32::new(count).map(Quota::per_minute))
    }

    fn new(quota: Option<Quota>) -> Self {
        let limiter = quota.map(RateLimiter::keyed);
        Self { limiter, clock: DefaultClock::default(), began: Instant::now(), tidied_s: AtomicU64::new(0) }
    }

    /// Counts one for `key`. Over the rate, the error is the time to wait, in whole seconds.
    pub fn count(&self, key: &K) -> Result<(), u64> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        if limiter.len() > MANY_KEYS && self.may_tidy(self.began.elapsed().as_secs()) {
            limiter.retain_recent();
        }
        limiter.check_key(key).map_err(|until| whole_seconds(until.wait_time_from(self.clock.now())))
    }

    /// True once in each second after the first.
    fn may_tidy(&self, now_s: u64) -> bool {
        self.tidied_s.fetch_max(now_s, Ordering::Relaxed) < now_s
    }
}

/// The order rate of each shop: the common limit, or the shop's own.
pub struct OrderRates {
    common: KeyedRate<String>,
    /// By shop: the limit, and the bucket made for that limit.
    own: DashMap<String, (u32, Arc<KeyedRate<()>>)>,
}

impl OrderRates {
    /// Allows `common` orders a second to each shop without a limit of its own.
    pub fn new(common: u32) -> Self {
        Self { common: KeyedRate::per_second(common), own: DashMap::new() }
    }

    /// Counts an order of a shop. Over its rate, the error is the time to wait, in whole seconds.
    pub fn count(&self, shop: &str, own: Option<u32>) -> Result<(), u64> {
        let Some(limit) = own else { return self.common.count(&shop.to_owned()) };
        let fresh = || (limit, Arc::new(KeyedRate::per_second(limit)));
        let mut kept = self.own.entry(shop.to_owned()).or_insert_with(fresh);
        if kept.0 != limit {
            *kept = fresh();
        }
        let rate = kept.1.clone();
        drop(kept);
        rate.count(&())
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).max(1) as u64
}

/// The key of an address in a limit. An IPv6 address counts as its whole /64, which belongs to one customer.
pub fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 => v4,
    }
}

/// Open connections by address.
#[derive(Clone)]
pub struct Connections {
    max: u32,
    open: Arc<DashMap<IpAddr, u32>>,
}

/// One open connection. It counts until it is dropped.
pub struct Permit {
    address: IpAddr,
    open: Arc<DashMap<IpAddr, u32>>,
}

impl Connections {
    /// Allows at most `max` connections for each address; 0 means no limit.
    pub fn new(max: u32) -> Self {
        Self { max, open: Arc::default() }
    }

    /// Counts one connection until the returned permit is dropped. `None` when the address has too many.
    pub fn open(&self, address: IpAddr) -> Option<Box<dyn Any>> {
        if self.max == 0 {
            return Some(Box::new(()));
        }
        let address = address_key(address);
        let mut count = self.open.entry(address).or_insert(0);
        if *count >= self.max {
            return None;
        }
        *count += 1;
        drop(count);
        Some(Box::new(Permit { address, open: self.open.clone() }))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(mut count) = self.open.get_mut(&self.address) {
            *count = count.saturating_sub(1);
        }
        self.open.remove_if(&self.address, |_, count| *count == 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_for_each_key_and_zero_is_none() {
        let rate = KeyedRate::per_minute(2);
        assert!(rate.count(&1).is_ok() && rate.count(&1).is_ok());
        assert!(rate.count(&1).is_err_and(|seconds| (1..=60).contains(&seconds)));
        assert!(rate.count(&2).is_ok());
        let none = KeyedRate::per_second(0);
        assert!((0..10_000).all(|_| none.count(&1).is_ok()));
    }

    #[test]
    fn of_many_keys_those_at_rest_are_forgotten_but_not_at_every_call() {
        let mut rate = KeyedRate::per_second(1_000_000);
        let kept = |rate: &KeyedRate<usize>| rate.limiter.as_ref().map_or(0, |limiter| limiter.len());
        // No second passes.
        rate.began += Duration::from_secs(3600);
        (0..MANY_KEYS * 2).for_each(|key| assert!(rate.count(&key).is_ok()));
        assert_eq!(kept(&rate), MANY_KEYS * 2);
        rate.began -= Duration::from_secs(3601);
        assert!(rate.count(&0).is_ok());
        assert!(kept(&rate) < MANY_KEYS * 2, "nothing was forgotten");
        assert!(rate.may_tidy(100) && !rate.may_tidy(100) && rate.may_tidy(101) && !rate.may_tidy(99));
    }

    #[test]
    fn connections_are_counted_while_they_live() {
        let connections = Connections::new(2);
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        let first = connections.open(address).unwrap();
        let _second = connections.open(neighbour).unwrap();
        assert!(connections.open(address).is_none());
        drop(first);
        assert!(connections.open(address).is_some());
        assert!(connections.open.len() == 1);
        assert!(Connections::new(0).open(address).is_some());
    }

    #[test]
    fn a_mapped_address_is_the_address_itself() {
        assert_eq!(address_key("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
