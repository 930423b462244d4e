//! What holds for a registry where nothing is said: the documented defaults, and for extensions those of Apache APISIX.

use super::DnsRecord;
use crate::resource::upstream::Seconds;

pub(super) const fn probe_interval() -> u32 {
    15
}

pub(super) const fn probe_timeout() -> u32 {
    5
}

pub(super) const fn kubernetes_weight() -> u16 {
    50
}

pub(super) fn nacos_prefix() -> String {
    "/nacos/v1".to_owned()
}

pub(super) const fn nacos_weight() -> u16 {
    100
}

pub(super) const fn nacos_interval() -> u32 {
    10
}

pub(super) fn eureka_prefix() -> String {
    "/eureka/".to_owned()
}

pub(super) const fn eureka_interval() -> u32 {
    30
}

pub(super) const fn eureka_weight() -> u16 {
    100
}

pub(super) const fn one() -> u16 {
    1
}

pub(super) const fn two_seconds() -> Seconds {
    Seconds(2.0)
}

pub(super) const fn five_seconds() -> Seconds {
    Seconds(5.0)
}

pub(super) const fn minute() -> Seconds {
    Seconds(60.0)
}

pub(super) fn dns_order() -> Vec<DnsRecord> {
    vec![DnsRecord::Srv, DnsRecord::A, DnsRecord::Aaaa]
}
