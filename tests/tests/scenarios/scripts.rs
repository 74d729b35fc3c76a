//! Golden scripts: stories written as commands, with everything that happens recorded below each.
//!
//! The scripts are the `.script` files beside this file. To write one, put commands and a line
//! `---` after each block, and run the tests with `UPDATE_GOLDENFILES=1`; then read the output
//! before believing it. Devices are `p`, `q`, `r`, ...; a command `2@17.1` is number 2, first
//! proposed in ballot 17 of node 1. What is sent is shown; what arrives is what the script
//! delivers. Commands:
//!
//! ```text
//! cluster [nodes=N] [spare=N] [learn=voters] [window=N] [separately=true]   a new world
//! campaign NODE [round=N]        call NAME via=NODE to=NODE FUNCTION ARGUMENT... [patient=true]
//! read ID via=NODE to=NODE       step_down NODE
//! deliver|drop|double|settle [NAME] [from=NODE] [to=NODE] [number=N] [except=NAME]
//! block NODE NODE                heal
//! join NODE from=NODE
//! crash|kill|restart|sync NODE   advance MILLISECONDS   gossip
//! state                          flight
//! ```
//!
//! Functions: `inbound`, `outbound`, `transfer`, `delete`; of the cluster `join NODE`, `acceptor NODE [weight=N]`,
//! `remove NODE`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use protocol::{CommandNumber, LearnFrom, NodeId};
use quorate_tests::world::{Device, Envelope, Event, Settings, World, call};
use serde_json::{Value, json};

use crate::support::{abc, goods, transfer};

type Failure = Box<dyn Error>;

struct Script {
    world: World,
    shown: usize,
}

impl Default for Script {
    fn default() -> Self {
        Self { world: World::three(), shown: 0 }
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Failure> {
        let mut arguments = command.consume_args();
        let told = self.execute(&command.name, &mut arguments)?;
        arguments.reject_next()?;
        let mut output = String::new();
        for event in &self.world.events()[self.shown..] {
            if is_shown(event) {
                writeln!(output, "{event}")?;
            }
        }
        self.shown = self.world.events().len();
        output.push_str(&told);
        Ok(output)
    }

    /// A script ends in a world where everything that was acknowledged is applied somewhere.
    fn end_script(&mut self) -> Result<(), Failure> {
        self.world.checks().assert_nothing_acknowledged_is_lost();
        Ok(())
    }
}

fn is_shown(event: &Event) -> bool {
    match event {
        Event::Sent { .. } | Event::Answered { .. } | Event::Applied { .. } | Event::Noted { .. } => true,
        // Learners hear most things more than once.
        Event::Ignored { role, .. } => *role != "learner",
        // The script itself says these, or what arrives.
        Event::Delivered { .. }
        | Event::Lost { .. }
        | Event::Stopped { .. }
        | Event::Restarted { .. }
        | Event::Remark(_) => false,
    }
}

impl Script {
    fn execute(&mut self, name: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<String, Failure> {
        match name {
            "cluster" => self.cluster(arguments)?,
            "campaign" => {
                let node = next_node(arguments)?;
                match arguments.take_key("round") {
                    Some(round) => self.world.campaign_in_round(node, round.parse()?),
                    None => self.world.campaign(node),
                }
            }
            "step_down" => self.world.step_down(next_node(arguments)?),
            "call" => self.call(arguments)?,
            "read" => {
                let id = next(arguments)?.parse()?;
                let (via, to) = (key_node(arguments, "via")?, key_node(arguments, "to")?);
                self.world.read_barrier(via, to, id);
            }
            "deliver" | "drop" | "double" | "settle" => self.messages(name, arguments)?,
            "block" => {
                let (from, to) = (next_node(arguments)?, next_node(arguments)?);
                self.world.block(from, to);
            }
            "heal" => self.world.heal(),
            "crash" => self.world.crash(next_node(arguments)?),
            "kill" => self.world.kill(next_node(arguments)?),
            "restart" => self.world.restart(next_node(arguments)?),
            "join" => {
                let node = next_node(arguments)?;
                self.world.join(node, key_node(arguments, "from")?);
            }
            "sync" => self.world.sync(next_node(arguments)?),
            "advance" => self.world.advance(Duration::from_millis(next(arguments)?.parse()?)),
            "gossip" => self.world.gossip(),
            "state" => return Ok(self.state()),
            "flight" => {
                return Ok(self.world.undelivered().iter().map(|envelope| format!("{envelope}\n")).collect());
            }
            other => return Err(format!("there is no command {other}").into()),
        }
        Ok(String::new())
    }

    fn cluster(&mut self, arguments: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let mut settings = Settings::default();
        if let Some(nodes) = arguments.take_key("nodes") {
            settings.nodes = nodes.parse()?;
        }
        if let Some(spare) = arguments.take_key("spare") {
            settings.spare = spare.parse()?;
        }
        if let Some(window) = arguments.take_key("window") {
            settings.window = window.parse()?;
        }
        if arguments.take_key("learn") == Some("voters") {
            settings.learn_from = LearnFrom::Voters;
        }
        if arguments.take_key("separately").is_some() {
            settings.run_bytes = 1;
        }
        *self = Self { world: World::new(settings), shown: 0 };
        Ok(())
    }

    fn call(&mut self, arguments: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let (via, to) = (key_node(arguments, "via")?, key_node(arguments, "to")?);
        let patience = if arguments.take_key("patient").is_some() { Duration::from_secs(10) } else { Duration::ZERO };
        let name = next(arguments)?;
        let (function, body) = match next(arguments)? {
            "inbound" => ("inventory.inbound", goods_of(arguments)?),
            "outbound" => ("inventory.outbound", goods_of(arguments)?),
            "transfer" => {
                let (from, to) = (next(arguments)?, next(arguments)?);
                ("inventory.transfer", transfer(from, to, next(arguments)?.parse()?))
            }
            "delete" => ("kv.delete", json!({"key": next(arguments)?})),
            "join" => {
                let name = next(arguments)?;
                ("cluster.join", json!({"name": name, "address": format!("{name}:7080")}))
            }
            "acceptor" => {
                let weight: u64 = arguments.take_key("weight").map_or(Ok(1), str::parse)?;
                ("cluster.set_acceptor", json!({"node": next_node(arguments)?.0, "weight": weight}))
            }
            "remove" => ("cluster.remove", json!({"node": next_node(arguments)?.0})),
            other => return Err(format!("there is no function {other}").into()),
        };
        self.world.send_call(via, to, call(name, function, &body, patience));
        Ok(())
    }

    fn messages(&mut self, what: &str, arguments: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let name = arguments.next_pos();
        let except = arguments.take_key("except");
        let from = arguments.take_key("from").map(node).transpose()?;
        let to = arguments.take_key("to").map(node).transpose()?;
        let number: Option<u64> = arguments.take_key("number").map(str::parse).transpose()?;
        let which = |envelope: &Envelope| {
            name.is_none_or(|name| envelope.is(name))
                && !except.is_some_and(|except| envelope.is(except))
                && from.is_none_or(|from| envelope.from == from)
                && to.is_none_or(|to| envelope.to == to)
                && number.is_none_or(|number| envelope.begins(number))
        };
        match what {
            "deliver" => _ = self.world.deliver_if(which),
            "drop" => _ = self.world.drop_if(which),
            "double" => self.world.double_if(which),
            _ => _ = self.world.settle_if(which),
        }
        Ok(())
    }

    fn state(&self) -> String {
        let mut text = String::new();
        for id in self.world.ids() {
            let node = self.world.node(id);
            let Some(roles) = &node.roles else {
                _ = writeln!(text, "{}: down", Device(id));
                continue;
            };
            let leads = roles.leader.leads().map(|ballot| format!(" leads {ballot},")).unwrap_or_default();
            let votes: Vec<String> =
                roles.acceptor.votes().map(|vote| format!("{} in {}", vote.command.id, vote.ballot)).collect();
            let (promise, issued, [a, b, c]) =
                (roles.acceptor.next_ballot(), roles.learner.issued(), abc(&self.world, id));
            let (name, votes) = (Device(id), votes.join(", "));
            let membership = match node.membership().number() {
                CommandNumber::NULL => String::new(),
                number => {
                    let acceptors = node.membership().majority().nodes().iter().map(|id| Device(*id).to_string());
                    format!(", acceptors {} by {number}", acceptors.collect::<Vec<_>>().join(" "))
                }
            };
            _ = writeln!(
                text,
                "{name}:{leads} promised {promise}, voted [{votes}], issued {issued}, A={a} B={b} C={c}{membership}"
            );
        }
        text
    }
}

fn goods_of(arguments: &mut ArgumentConsumer<'_>) -> Result<Value, Failure> {
    let warehouse = next(arguments)?;
    Ok(goods(warehouse, next(arguments)?.parse()?))
}

fn next<'a>(arguments: &mut ArgumentConsumer<'a>) -> Result<&'a str, Failure> {
    arguments.next_pos().ok_or_else(|| "an argument is missing".into())
}

fn next_node(arguments: &mut ArgumentConsumer<'_>) -> Result<NodeId, Failure> {
    node(next(arguments)?)
}

fn key_node(arguments: &mut ArgumentConsumer<'_>, key: &str) -> Result<NodeId, Failure> {
    node(arguments.take_key(key).ok_or_else(|| format!("{key}= is missing"))?)
}

fn node(name: &str) -> Result<NodeId, Failure> {
    let ids = (1..=11).map(NodeId);
    ids.into_iter().find(|id| Device(*id).to_string() == name).ok_or_else(|| format!("{name} is no device").into())
}

/// All scripts. Catches any change of what the shipped cores say to each other, and when: the
/// recorded output is what a reviewer has read.
#[test]
fn scripts_tell_what_they_told_before() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(&directory)
        .expect("the scripts are beside this file")
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "script"))
        .collect();
    paths.sort();
    assert_eq!(paths.len(), 10, "a script is missing, or new: {paths:?}");
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Script::default(), &path).expect("a script that can be read");
    }
}
