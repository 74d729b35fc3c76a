//! The patent's example: goods in warehouses (A16). `inbound` adds, `outbound` withdraws,
//! `transfer` moves.
//!
//! The stock of an item in a warehouse is the state key `inventory/{item}/{warehouse}`, its
//! value decimal text; an absent key is a stock of 0, and a stock withdrawn to 0 keeps its key.
//! Names hold no slash, so two stocks never share a key. A stock is never below 0 nor above
//! 2^53 - 1, the largest integer that every JSON reader keeps exact.
//!
//! Checks come in this order: arguments, amount, warehouses, stock. Only `insufficient_stock`
//! may pass: a later inbound helps. What it waits for is the warehouse that lacks stock, so
//! nothing else is read before that check.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use protocol::Key;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::context::ExecutionContext;
use crate::function::{Failure, Function, Refusal};
use crate::typed::TypedFunction;

/// The largest stock and the largest amount: 2^53 - 1.
const STOCK_MAX: u64 = (1 << 53) - 1;
/// The longest name, in bytes: two of them and the rest of the key stay below the limit of keys.
const NAME_BYTES_MAX: usize = 256;

/// The functions of this library.
#[must_use]
pub fn functions() -> Vec<Arc<dyn Function>> {
    vec![
        Arc::new(
            TypedFunction::new("inventory.inbound", "Adds an amount of an item to a warehouse.", inbound)
                .of_keys(Change::keys),
        ),
        Arc::new(
            TypedFunction::new("inventory.outbound", "Withdraws an amount of an item from a warehouse.", outbound)
                .of_keys(Change::keys),
        ),
        Arc::new(
            TypedFunction::new(
                "inventory.transfer",
                "Moves an amount of an item from one warehouse to another.",
                transfer,
            )
            .of_keys(Transfer::keys),
        ),
    ]
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Change {
    /// The warehouse.
    warehouse: Name,
    /// How many, from 1 to 2^53 - 1.
    amount: Amount,
    /// What.
    #[serde(default = "goods")]
    item: Name,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Transfer {
    /// The warehouse that gives.
    from: Name,
    /// The warehouse that receives, another one.
    to: Name,
    /// How many, from 1 to 2^53 - 1.
    amount: Amount,
    /// What.
    #[serde(default = "goods")]
    item: Name,
}

impl Change {
    fn keys(&self) -> Result<Vec<Key>, Failure> {
        Ok(vec![stock_key(&self.item, &self.warehouse)?])
    }
}

impl Transfer {
    fn keys(&self) -> Result<Vec<Key>, Failure> {
        Ok(vec![stock_key(&self.item, &self.from)?, stock_key(&self.item, &self.to)?])
    }
}

#[derive(Serialize, JsonSchema)]
struct Changed {
    /// The stock afterwards.
    stock: u64,
}

#[derive(Serialize, JsonSchema)]
struct Transferred {
    /// The stock of the giving warehouse afterwards.
    from: u64,
    /// The stock of the receiving warehouse afterwards.
    to: u64,
}

fn inbound(context: &mut ExecutionContext<'_>, arguments: Change) -> Result<Changed, Failure> {
    let amount = arguments.amount.checked()?;
    let key = stock_key(&arguments.item, &arguments.warehouse)?;
    let stock = added(stock(context, &key)?, amount, &arguments.warehouse)?;
    put_stock(context, key, stock)?;
    Ok(Changed { stock })
}

fn outbound(context: &mut ExecutionContext<'_>, arguments: Change) -> Result<Changed, Failure> {
    let amount = arguments.amount.checked()?;
    let key = stock_key(&arguments.item, &arguments.warehouse)?;
    let stock = withdrawn(stock(context, &key)?, amount, &arguments.warehouse)?;
    put_stock(context, key, stock)?;
    Ok(Changed { stock })
}

fn transfer(context: &mut ExecutionContext<'_>, arguments: Transfer) -> Result<Transferred, Failure> {
    let amount = arguments.amount.checked()?;
    if arguments.from == arguments.to {
        return Err(refusal("same_warehouse", "a transfer is between two different warehouses".to_owned()));
    }
    let from_key = stock_key(&arguments.item, &arguments.from)?;
    let from = withdrawn(stock(context, &from_key)?, amount, &arguments.from)?;
    let to_key = stock_key(&arguments.item, &arguments.to)?;
    let to = added(stock(context, &to_key)?, amount, &arguments.to)?;
    put_stock(context, from_key, from)?;
    put_stock(context, to_key, to)?;
    Ok(Transferred { from, to })
}

fn stock_key(item: &Name, warehouse: &Name) -> Result<Key, Failure> {
    Key::new(format!("inventory/{}/{}", item.0, warehouse.0))
        .map_err(|error| Failure::InvalidArguments(error.to_string()))
}

fn stock(context: &mut ExecutionContext<'_>, key: &Key) -> Result<u64, Failure> {
    let Some(entry) = context.get(key)? else { return Ok(0) };
    serde_json::from_slice(&entry.value).ok().filter(|stock| *stock <= STOCK_MAX).ok_or_else(|| {
        refusal(
            "not_a_number",
            format!("the value of {key} is not a stock, an integer from 0 to {STOCK_MAX}; put one there, or delete it"),
        )
    })
}

fn put_stock(context: &mut ExecutionContext<'_>, key: Key, stock: u64) -> Result<(), Failure> {
    context.put(key, Bytes::from(stock.to_string()))
}

fn added(stock: u64, amount: u64, warehouse: &Name) -> Result<u64, Failure> {
    stock.checked_add(amount).filter(|sum| *sum <= STOCK_MAX).ok_or_else(|| {
        refusal(
            "invalid_amount",
            format!("{} would hold more than {STOCK_MAX}: it has {stock}, and {amount} would come in", warehouse.0),
        )
    })
}

fn withdrawn(stock: u64, amount: u64, warehouse: &Name) -> Result<u64, Failure> {
    stock.checked_sub(amount).ok_or_else(|| {
        Failure::Refused(Refusal {
            code: "insufficient_stock",
            message: format!("{} has {stock}, and {amount} are wanted", warehouse.0),
            may_pass: true,
        })
    })
}

fn refusal(code: &'static str, message: String) -> Failure {
    Failure::Refused(Refusal { code, message, may_pass: false })
}

/// A warehouse or an item.
#[derive(PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
struct Name(String);

fn goods() -> Name {
    Name("goods".to_owned())
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = !name.is_empty() && name.len() <= NAME_BYTES_MAX;
        if !fits || name.chars().any(|character| character == '/' || character.is_control()) {
            return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes, no slash and no control characters"));
        }
        Ok(Self(name))
    }
}

impl JsonSchema for Name {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": NAME_BYTES_MAX,
            "pattern": "^[^/\\u0000-\\u001f\\u007f-\\u009f]+$",
        })
    }
}

/// A JSON number as the caller wrote it. Any number is an argument of the right type; whether
/// it is an amount is for the function to say, so that `5.5` and `1e400` are refused with a code.
#[derive(Deserialize)]
#[serde(try_from = "Box<RawValue>")]
struct Amount(Box<RawValue>);

impl Amount {
    fn checked(&self) -> Result<u64, Failure> {
        self.0.get().parse().ok().filter(|amount| (1..=STOCK_MAX).contains(amount)).ok_or_else(|| {
            refusal(
                "invalid_amount",
                format!("an amount is an integer from 1 to {STOCK_MAX}, without point or exponent"),
            )
        })
    }
}

impl TryFrom<Box<RawValue>> for Amount {
    type Error = &'static str;

    fn try_from(text: Box<RawValue>) -> Result<Self, Self::Error> {
        if text.get().starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Ok(Self(text));
        }
        Err("an amount is a number")
    }
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": STOCK_MAX })
    }
}

#[cfg(test)]
mod tests;
