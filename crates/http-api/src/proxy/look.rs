//! Looking at the members: who is there, of which cluster, and how it is.

use std::error::Error;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use super::Proxy;
use super::members::{Seen, Word};
use crate::names;

/// How often the members are looked at.
const LOOKED_AT: Duration = Duration::from_millis(500);
/// One that does not answer within this is gone: far more than a busy one needs.
const LOOK_WAIT: Duration = Duration::from_secs(1);

impl Proxy {
    /// Looks at the members for ever.
    pub async fn watch(self: Arc<Self>) {
        let mut interval = tokio::time::interval(LOOKED_AT);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let addresses = self.members.borrow().addresses();
            let seen = join_all(addresses.into_iter().map(|address| self.look(address))).await;
            self.members.send_modify(|members| members.looked(seen));
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and there are few members")]
            metrics::gauge!("quorate_gateway_members_ready").set(self.members.borrow().ready() as f64);
        }
    }

    async fn look(&self, address: String) -> (String, Seen) {
        let looked = tokio::time::timeout(LOOK_WAIT, self.seen(&address)).await;
        let seen = looked.unwrap_or_else(|_| Seen::Silent("nothing within a second".to_owned()));
        match &seen {
            Seen::Foreign => self.say_foreign(&address),
            Seen::Denied if !self.members.borrow().is_denied(&address) => tracing::warn!(
                address,
                "this member does not take the token of this gateway, which so does not know how it is: let \
                 gateway.token_file hold a token that may read (`quorate token create NAME --read`)"
            ),
            Seen::Silent(why) if !self.members.borrow().is_gone(&address) => {
                tracing::warn!(address, why, "this member does not answer; others are asked");
            }
            Seen::Denied | Seen::Silent(_) | Seen::Unable | Seen::Word(_) => {}
        }
        (address, seen)
    }

    async fn seen(&self, address: &str) -> Seen {
        let view = match self.asked(address, "/v1/cluster").await {
            Ok(view) => view,
            Err(error) => return Seen::Silent(innermost(&error)),
        };
        match view.status().as_u16() {
            200..300 => {}
            401 | 403 => return Seen::Denied,
            421 => return Seen::Foreign,
            503 => return Seen::Unable,
            status => return Seen::Silent(format!("HTTP {status}")),
        }
        let name = view.headers().get(names::NODE.as_str()).and_then(|name| name.to_str().ok()).map(str::to_owned);
        let (Some(name), Ok(view)) = (name, view.json::<Value>().await) else {
            return Seen::Silent("it is no node of Quorate".to_owned());
        };
        if view["name"].as_str() != Some(self.cluster.as_str()) {
            return Seen::Foreign;
        }
        let ready = match self.asked(address, "/readyz").await {
            Ok(ready) => ready.status().is_success(),
            Err(error) => return Seen::Silent(innermost(&error)),
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let nodes = view["nodes"].as_array().into_iter().flatten();
        let members = nodes.map(|node| (text(&node["name"]), text(&node["addresses"]["http"]))).collect();
        Seen::Word(Word { name, ready, leader: view["leader"]["name"].as_str().map(str::to_owned), members })
    }

    async fn asked(&self, address: &str, path: &str) -> reqwest::Result<reqwest::Response> {
        let mut request = self.client.get(format!("{}://{address}{path}", self.scheme));
        request = request.header("via", self.via.as_bytes());
        request = request.header(names::CLUSTER.as_str(), self.cluster_header.as_bytes());
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|own| own.header.clone());
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        request.send().await
    }

    /// Once, when it is found out.
    fn say_foreign(&self, address: &str) {
        if !self.members.borrow().is_foreign(address) {
            tracing::warn!(
                address,
                ours = self.cluster,
                "this is no member of cluster.name, or it is without the role gateway; nothing is passed on to it"
            );
        }
    }

    /// A member says that a request was for another cluster, or that it is no gateway: whatever it was before, it takes no
    /// request for ours.
    pub(super) fn misdirected(&self, address: &str) {
        self.say_foreign(address);
        self.members.send_modify(|members| members.misdirected(address));
    }
}

/// The cause at the bottom, which is what an operator can act on: "connection refused".
fn innermost(error: &reqwest::Error) -> String {
    let mut error: &dyn Error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
