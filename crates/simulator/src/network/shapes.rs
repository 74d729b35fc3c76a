//! Which links a partition of some shape cuts (RELIABILITY 2).

use std::collections::BTreeSet;

use protocol::NodeId;

use super::Link;
use crate::chance::Chance;
use crate::fault::Shape;

/// The links that a partition of this shape cuts among these nodes, which chance puts into their
/// places.
#[must_use]
pub fn cut(shape: Shape, nodes: &[NodeId], chance: &mut Chance) -> Vec<Link> {
    let mut nodes = nodes.to_vec();
    chance.shuffle(&mut nodes);
    let count = nodes.len();
    if count < 2 {
        return Vec::new();
    }
    let side = 1 + chance.index(count - 1);
    let (left, right) = nodes.split_at(side);
    match shape {
        Shape::TwoSided => [links(left, right), links(right, left)].concat(),
        Shape::OneWay => links(left, right),
        Shape::Partial | Shape::FlappingEdges => {
            let mut some = links(&nodes, &nodes);
            chance.shuffle(&mut some);
            some.truncate(1 + chance.index(count * (count - 1)));
            some
        }
        Shape::Bridge => {
            // The first of the right side is the bridge; with two nodes nothing is left to cut.
            let beyond = &right[1..];
            [links(left, beyond), links(beyond, left)].concat()
        }
        Shape::Chain => all_but(&nodes, |one, other| one.abs_diff(other) == 1),
        Shape::Star => all_but(&nodes, |one, other| one == 0 || other == 0),
        Shape::Ring => all_but(&nodes, |one, other| one.abs_diff(other) == 1 || one.abs_diff(other) == count - 1),
        Shape::Flapping => {
            let (one, other) = (nodes[0], nodes[1]);
            if chance.coin() { vec![(one, other), (other, one)] } else { links(left, right) }
        }
        Shape::Rest | Shape::Fringe => Vec::new(),
    }
}

/// All links from here to there.
fn links(here: &[NodeId], there: &[NodeId]) -> Vec<Link> {
    let to = |from: NodeId| there.iter().filter(move |to| **to != from).map(move |to| (from, *to));
    here.iter().flat_map(|from| to(*from)).collect()
}

/// All links but those between places for which `stays` holds.
fn all_but(nodes: &[NodeId], stays: impl Fn(usize, usize) -> bool) -> Vec<Link> {
    let mut cut = BTreeSet::new();
    for (one, from) in nodes.iter().enumerate() {
        for (other, to) in nodes.iter().enumerate() {
            if one != other && !stays(one, other) {
                cut.insert((*from, *to));
            }
        }
    }
    cut.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u64) -> Vec<NodeId> {
        (1..=count).map(NodeId).collect()
    }

    /// The links that are left, by node.
    fn left(shape: Shape, count: u64, seed: u64) -> Vec<Vec<NodeId>> {
        let cut: BTreeSet<Link> = cut(shape, &nodes(count), &mut Chance::new(seed)).into_iter().collect();
        let reaches =
            |from: &NodeId| nodes(count).into_iter().filter(|to| to != from && !cut.contains(&(*from, *to))).collect();
        nodes(count).iter().map(reaches).collect()
    }

    fn degrees(shape: Shape, count: u64, seed: u64) -> Vec<usize> {
        let mut degrees: Vec<usize> = left(shape, count, seed).iter().map(Vec::len).collect();
        degrees.sort_unstable();
        degrees
    }

    fn is_mutual(reach: &[Vec<NodeId>]) -> bool {
        let id = |index: usize| NodeId(index as u64 + 1);
        reach
            .iter()
            .enumerate()
            .all(|(from, to)| to.iter().all(|to| reach[usize::try_from(to.0).expect("small") - 1].contains(&id(from))))
    }

    /// Catches shapes that are not what their names say: each is known by how many neighbours its
    /// nodes keep, and whether links work both ways.
    #[test]
    fn each_shape_leaves_the_links_of_its_name() {
        let (mut sizes, mut edges) = (BTreeSet::new(), BTreeSet::new());
        for seed in 0..50 {
            assert_eq!(degrees(Shape::Chain, 5, seed), [1, 1, 2, 2, 2]);
            assert_eq!(degrees(Shape::Star, 5, seed), [1, 1, 1, 1, 4]);
            assert_eq!(degrees(Shape::Ring, 5, seed), [2; 5]);
            assert_eq!(degrees(Shape::Ring, 3, seed), [2; 3], "a ring of three is whole");
            for shape in [Shape::TwoSided, Shape::Bridge, Shape::Chain, Shape::Star, Shape::Ring] {
                assert!(is_mutual(&left(shape, 5, seed)), "{shape:?} cuts both ways");
            }
            assert!(!is_mutual(&left(Shape::OneWay, 5, seed)));
            let sides = degrees(Shape::TwoSided, 5, seed);
            assert!(sides == [0, 3, 3, 3, 3] || sides == [1, 1, 2, 2, 2], "{sides:?}");
            let bridged = degrees(Shape::Bridge, 5, seed);
            assert_eq!(bridged.last(), Some(&4), "one node reaches all");
            for shape in [Shape::Partial, Shape::FlappingEdges] {
                let cuts: BTreeSet<Link> = cut(shape, &nodes(5), &mut Chance::new(seed)).into_iter().collect();
                sizes.insert((shape, cuts.len()));
                let one_way = |(from, to): &&Link| !cuts.contains(&(*to, *from));
                edges.insert((shape, cuts.iter().filter(one_way).count() > 0));
            }
            assert!(!cut(Shape::Flapping, &nodes(3), &mut Chance::new(seed)).is_empty());
        }
        for shape in [Shape::Partial, Shape::FlappingEdges] {
            let sizes: Vec<usize> = sizes.iter().filter(|(of, _)| *of == shape).map(|(_, size)| *size).collect();
            assert!(sizes.len() > 15 && sizes.iter().all(|size| (1..=20).contains(size)), "{shape:?}: {sizes:?}");
            assert!(edges.contains(&(shape, true)), "{shape:?} has links of one direction only");
        }
        for kind in [Shape::TwoSided, Shape::OneWay, Shape::Partial, Shape::Chain] {
            assert!(cut(kind, &nodes(1), &mut Chance::new(1)).is_empty(), "a node alone has no links");
        }
    }
}
