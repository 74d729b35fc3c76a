use proptest::prelude::*;

use super::*;
use crate::testing::{MapState, key, put};

const INBOUND: &str = "inventory.inbound";
const OUTBOUND: &str = "inventory.outbound";
const TRANSFER: &str = "inventory.transfer";

/// A16: catches any departure from the patent's example and from API.md: results, keys, values,
/// the default item.
#[test]
fn the_patent_example_plays() {
    let mut state = MapState::default();
    for (function, arguments, result) in [
        (INBOUND, r#"{"warehouse": "A", "amount": 500}"#, r#"{"stock":500}"#),
        (TRANSFER, r#"{"from": "A", "to": "B", "amount": 100}"#, r#"{"from":400,"to":100}"#),
        (OUTBOUND, r#"{"warehouse": "B", "amount": 100, "item": "goods"}"#, r#"{"stock":0}"#),
        (INBOUND, r#"{"warehouse": "A", "amount": 7, "item": "tea"}"#, r#"{"stock":7}"#),
    ] {
        assert_eq!(state.call(function, arguments).as_deref(), Ok(result), "{function} {arguments}");
    }
    assert_eq!(state.text("inventory/goods/A"), Some("400"));
    assert_eq!(state.text("inventory/goods/B"), Some("0"), "a stock of 0 keeps its key");
    assert_eq!(state.text("inventory/tea/A"), Some("7"));
    assert_eq!(state.entries.len(), 3);
}

/// A16: catches a transfer whose two effects become two commands, or miss one.
#[test]
fn a_transfer_is_one_command() {
    let state = MapState::new(&[("inventory/goods/A", "5")]);
    let execution = state.execute(TRANSFER, r#"{"from": "A", "to": "B", "amount": 5}"#);
    assert_eq!(execution.effects, [put("inventory/goods/A", "0"), put("inventory/goods/B", "5")]);
}

/// A16: catches an amount outside 1 to 2^53 - 1, or not an integer, that changes a stock, and one
/// that is answered as if it were no number.
#[test]
fn strange_numbers_are_no_amounts() {
    let state = MapState::new(&[("inventory/goods/A", "5")]);
    for amount in [
        "0",
        "-0",
        "-1",
        "0.5",
        "5.0",
        "5e0",
        "1e400",
        "-1e400",
        "1e-400",
        "9007199254740992",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "340282366920938463463374607431768211456",
    ] {
        for function in [INBOUND, OUTBOUND] {
            let arguments = format!(r#"{{"warehouse": "A", "amount": {amount}}}"#);
            state.assert_refuses(function, &arguments, "invalid_amount", false);
        }
        let arguments = format!(r#"{{"from": "A", "to": "A", "amount": {amount}}}"#);
        state.assert_refuses(TRANSFER, &arguments, "invalid_amount", false);
    }
}

/// A16: catches arguments of a wrong type that are guessed at, and a message that does not say
/// which one is wrong.
#[test]
fn wrong_arguments_are_named() {
    let state = MapState::new(&[("inventory/goods/A", "5")]);
    for (arguments, says) in [
        (r#"{"warehouse": "A", "amount": "5"}"#, "argument `amount`: an amount is a number"),
        (r#"{"warehouse": "A", "amount": true}"#, "argument `amount`"),
        (r#"{"warehouse": "A", "amount": null}"#, "argument `amount`"),
        (r#"{"warehouse": "A", "amount": [5]}"#, "argument `amount`"),
        (r#"{"warehouse": "A", "amount": {}}"#, "argument `amount`"),
        (r#"{"warehouse": "A", "amount": 05}"#, "invalid number"),
        (r#"{"warehouse": "A", "amount": +5}"#, "expected value"),
        (r#"{"warehouse": "A"}"#, "missing field `amount`"),
        (r#"{"amount": 5}"#, "missing field `warehouse`"),
        (r#"{"warehouse": 1, "amount": 5}"#, "argument `warehouse`"),
        (r#"{"warehouse": "A", "amount": 5, "item": null}"#, "argument `item`"),
        (r#"{"warehouse": "A", "amount": 5, "itme": "x"}"#, "unknown field `itme`"),
        (r#"{"warehouse": "A", "amount": 5, "amount": 6}"#, "duplicate field `amount`"),
        (r#"{"warehouse": "A", "amount": 5} 6"#, "trailing characters"),
        (r#"["A", 5]"#, "one JSON object"),
        ("5", "one JSON object"),
        ("null", "one JSON object"),
        ("{", "EOF"),
        ("", "one JSON object"),
    ] {
        state.assert_invalid(INBOUND, arguments, says);
        state.assert_invalid(OUTBOUND, arguments, says);
    }
    state.assert_invalid(TRANSFER, r#"{"warehouse": "A", "amount": 5}"#, "unknown field `warehouse`");
    state.assert_invalid(TRANSFER, r#"{"from": "A", "amount": 5}"#, "missing field `to`");
}

/// A16: catches names by which two stocks would share a key, or one would have none.
#[test]
fn names_cannot_collide() {
    let mut state = MapState::default();
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    let wide = "é".repeat(NAME_BYTES_MAX / 2 + 1);
    for bad in ["", "a/b", "/", "a\\u0000b", "\\n", "\\u007f", "\\u0085", &long, &wide] {
        state.assert_invalid(INBOUND, &format!(r#"{{"warehouse": "{bad}", "amount": 5}}"#), "argument `warehouse`");
        state.assert_invalid(
            INBOUND,
            &format!(r#"{{"warehouse": "A", "amount": 5, "item": "{bad}"}}"#),
            "argument `item`",
        );
        state.assert_invalid(TRANSFER, &format!(r#"{{"from": "{bad}", "to": "A", "amount": 5}}"#), "argument `from`");
        state.assert_invalid(TRANSFER, &format!(r#"{{"from": "A", "to": "{bad}", "amount": 5}}"#), "argument `to`");
    }
    let longest = "x".repeat(NAME_BYTES_MAX);
    let arguments = format!(r#"{{"warehouse": "{longest}", "amount": 5, "item": "{longest}"}}"#);
    assert_eq!(state.call(INBOUND, &arguments).as_deref(), Ok(r#"{"stock":5}"#));
    assert_eq!(state.call(INBOUND, r#"{"warehouse": "Köln Süd", "amount": 5}"#).as_deref(), Ok(r#"{"stock":5}"#));
    assert_eq!(state.text("inventory/goods/Köln Süd"), Some("5"));
}

/// A16: catches a stock below 0, and a "not now" that the leader would not keep, or would try
/// again for a change that cannot help.
#[test]
fn too_little_stock_may_pass() {
    let state = MapState::new(&[("inventory/goods/A", "5")]);
    state.assert_refuses(OUTBOUND, r#"{"warehouse": "A", "amount": 6}"#, "insufficient_stock", true);
    state.assert_refuses(OUTBOUND, r#"{"warehouse": "B", "amount": 1}"#, "insufficient_stock", true);
    state.assert_refuses(TRANSFER, r#"{"from": "A", "to": "B", "amount": 6}"#, "insufficient_stock", true);
    state.assert_refuses(OUTBOUND, r#"{"warehouse": "A", "amount": 5, "item": "tea"}"#, "insufficient_stock", true);

    let waiting = state.execute(TRANSFER, r#"{"from": "A", "to": "B", "amount": 6}"#);
    assert!(waiting.reads.touched_by(&key("inventory/goods/A")));
    assert!(!waiting.reads.touched_by(&key("inventory/goods/B")), "more in B does not help");
}

/// A16: catches a transfer to itself that creates or destroys goods, and the order of checks:
/// it is refused as such whether or not there is stock.
#[test]
fn a_transfer_needs_two_warehouses() {
    let state = MapState::new(&[("inventory/goods/A", "5")]);
    for amount in [5, 6] {
        let arguments = format!(r#"{{"from": "A", "to": "A", "amount": {amount}}}"#);
        state.assert_refuses(TRANSFER, &arguments, "same_warehouse", false);
    }
    // The same name in another spelling of JSON.
    state.assert_refuses(TRANSFER, r#"{"from": "A", "to": "\u0041", "amount": 1}"#, "same_warehouse", false);
}

/// A16: catches a stock above 2^53 - 1, which JSON readers would round.
#[test]
fn a_stock_has_an_upper_end() {
    let mut state = MapState::default();
    let most = format!(r#"{{"warehouse": "A", "amount": {STOCK_MAX}}}"#);
    assert_eq!(state.call(INBOUND, &most), Ok(r#"{"stock":9007199254740991}"#.to_owned()));
    for amount in [1, STOCK_MAX] {
        let arguments = format!(r#"{{"warehouse": "A", "amount": {amount}}}"#);
        state.assert_refuses(INBOUND, &arguments, "invalid_amount", false);
    }
    assert!(state.call(INBOUND, r#"{"warehouse": "B", "amount": 1}"#).is_ok());
    state.assert_refuses(TRANSFER, r#"{"from": "B", "to": "A", "amount": 1}"#, "invalid_amount", false);
    assert_eq!(state.call(OUTBOUND, &most), Ok(r#"{"stock":0}"#.to_owned()));
}

/// Catches a stock that someone else wrote as something else and that is taken for 0 or wraps.
#[test]
fn a_value_that_is_not_a_stock_is_refused() {
    for value in
        ["", "x", "-1", "5.0", "1e3", "007", "\"5\"", "null", "[5]", "9007199254740992", "99999999999999999999"]
    {
        let state = MapState::new(&[("inventory/goods/A", value), ("inventory/goods/B", "9")]);
        state.assert_refuses(INBOUND, r#"{"warehouse": "A", "amount": 1}"#, "not_a_number", false);
        state.assert_refuses(OUTBOUND, r#"{"warehouse": "A", "amount": 1}"#, "not_a_number", false);
        state.assert_refuses(TRANSFER, r#"{"from": "A", "to": "B", "amount": 1}"#, "not_a_number", false);
        state.assert_refuses(TRANSFER, r#"{"from": "B", "to": "A", "amount": 1}"#, "not_a_number", false);
    }
    // Put there by hand, with the line end of an editor.
    let mut state = MapState::new(&[("inventory/goods/A", "5\n")]);
    assert_eq!(state.call(INBOUND, r#"{"warehouse": "A", "amount": 1}"#).as_deref(), Ok(r#"{"stock":6}"#));
}

proptest! {
    /// A16, S-09: catches goods that appear or vanish: whatever transfers do, refused ones
    /// included, the sum stays, and every result tells the stocks afterwards.
    #[test]
    fn transfers_conserve_stock(
        stocks in proptest::collection::vec(0..50_u64, 4),
        transfers in proptest::collection::vec((0..4_usize, 0..4_usize, 0..40_u64), 0..40),
    ) {
        let mut state = MapState::default();
        for (warehouse, stock) in stocks.iter().enumerate() {
            state.apply(&[put(&format!("inventory/goods/{warehouse}"), &stock.to_string())]);
        }
        let mut model = stocks.clone();
        for (from, to, amount) in transfers {
            let arguments = format!(r#"{{"from": "{from}", "to": "{to}", "amount": {amount}}}"#);
            let result = state.call(TRANSFER, &arguments);
            if from != to && amount > 0 && model[from] >= amount {
                model[from] -= amount;
                model[to] += amount;
                prop_assert_eq!(result, Ok(format!(r#"{{"from":{},"to":{}}}"#, model[from], model[to])));
            } else {
                prop_assert!(matches!(result, Err(Failure::Refused(_))), "{:?}", result);
            }
            for (warehouse, stock) in model.iter().enumerate() {
                let stored = state.text(&format!("inventory/goods/{warehouse}"));
                prop_assert_eq!(stored.map(str::to_owned), Some(stock.to_string()));
            }
        }
        prop_assert_eq!(model.iter().sum::<u64>(), stocks.iter().sum::<u64>());
    }

    /// Catches a function that panics on any JSON whatever.
    #[test]
    fn no_amount_panics(amount in r#"-?[0-9]{1,25}(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,5})?|"[a-z]{0,3}"|null|\[|\{\}"#) {
        let mut state = MapState::default();
        let result = state.call(INBOUND, &format!(r#"{{"warehouse": "A", "amount": {amount}}}"#));
        match result {
            Ok(stock) => prop_assert_eq!(stock, format!(r#"{{"stock":{amount}}}"#)),
            Err(failure) => prop_assert!(
                matches!(failure, Failure::Refused(_) | Failure::InvalidArguments(_)),
                "{:?}", failure
            ),
        }
    }
}
