//! Doubly linked lists that run through records of an arena by index.
//!
//! A record can be on several lists at once, each through a [`Links`] field of its own; a marker
//! type tells the fields apart.

use std::marker::PhantomData;

use crate::arena::NIL;

/// The record is on no list of this kind.
const APART: u32 = u32::MAX - 1;

/// A record's place on one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Links {
    prev: u32,
    next: u32,
}

impl Links {
    pub(crate) const APART: Links = Links { prev: APART, next: NIL };

    pub(crate) fn is_linked(self) -> bool {
        self.prev != APART
    }
}

/// Where the links of lists of kind `K` are found.
pub(crate) trait Nodes<K> {
    fn links(&mut self, id: u32) -> &mut Links;
}

/// First and last record of a list, first in first out.
#[derive(Debug)]
pub(crate) struct List<K> {
    head: u32,
    tail: u32,
    kind: PhantomData<K>,
}

impl<K> List<K> {
    pub(crate) const fn new() -> Self {
        List { head: NIL, tail: NIL, kind: PhantomData }
    }

    pub(crate) fn front(&self) -> Option<u32> {
        (self.head != NIL).then_some(self.head)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head == NIL
    }

    pub(crate) fn push_back(&mut self, nodes: &mut impl Nodes<K>, id: u32) {
        let links = nodes.links(id);
        assert!(!links.is_linked(), "record {id} is on a list of this kind already");
        *links = Links { prev: self.tail, next: NIL };
        if self.tail == NIL {
            self.head = id;
        } else {
            nodes.links(self.tail).next = id;
        }
        self.tail = id;
    }

    /// Takes `id` off this list, on which it must be.
    pub(crate) fn remove(&mut self, nodes: &mut impl Nodes<K>, id: u32) {
        let Links { prev, next } = std::mem::replace(nodes.links(id), Links::APART);
        assert!(prev != APART, "record {id} is on no list of this kind");
        if prev == NIL {
            self.head = next;
        } else {
            nodes.links(prev).next = next;
        }
        if next == NIL {
            self.tail = prev;
        } else {
            nodes.links(next).prev = prev;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    struct Plain;

    impl Nodes<Plain> for Vec<Links> {
        fn links(&mut self, id: u32) -> &mut Links {
            &mut self[id as usize]
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_deque(ops in prop::collection::vec(0u32..16, 0..200)) {
            let mut nodes = vec![Links::APART; 16];
            let mut list = List::<Plain>::new();
            let mut model = VecDeque::new();
            for id in ops {
                if nodes[id as usize].is_linked() {
                    list.remove(&mut nodes, id);
                    model.retain(|&m| m != id);
                } else {
                    list.push_back(&mut nodes, id);
                    model.push_back(id);
                }
                prop_assert_eq!(list.front(), model.front().copied());
                prop_assert_eq!(list.is_empty(), model.is_empty());
            }
            while let Some(id) = list.front() {
                prop_assert_eq!(Some(id), model.pop_front());
                list.remove(&mut nodes, id);
            }
            prop_assert!(model.is_empty());
        }
    }
}
