//! Scenarios: the shipped cores in a world where the test decides what arrives.
//!
//! Each test plays one story of the checklist and names its items. The world itself looks for
//! broken invariants after every step (`world::Checks`); what a test asserts is the story.

mod crashes;
mod exactly_once;
mod execution;
mod fig8;
mod gate;
mod leadership;
mod learning;
mod literal_rule;
mod membership;
mod random;
mod scripts;
mod support;
