import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from manylens.method.graph import RelationalGraph, build_graph, edge_weight


def points(n: int, d: int = 6, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, d)) + 0.7
    unit: np.ndarray = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def edges(graph: RelationalGraph) -> dict[tuple[int, int], float]:
    rows = np.repeat(np.arange(len(graph)), np.diff(graph.indptr))
    return dict(zip(zip(rows.tolist(), graph.indices.tolist(), strict=True), graph.weights.tolist(), strict=True))


def brute_force(embeddings: np.ndarray, tau: float, neighbors: int) -> set[tuple[int, int]]:
    """The definition, pair by pair, on the same rounded embeddings."""
    whole = np.rint(embeddings.astype(np.float64) * 4000)
    kept: set[tuple[int, int]] = set()
    for u in range(len(whole)):
        found = []
        for v in range(len(whole)):
            product = float(whole[u] @ whole[v])
            if u != v and edge_weight(product / 4000**2, 8, -4) >= tau:
                found.append((-product, v))
        kept.update((u, v) for _, v in sorted(found)[:neighbors])
    return kept | {(v, u) for u, v in kept}


def test_three_images_by_hand() -> None:
    """Cosines 1, 0 and .6 give weights .982, .018 and sigmoid(.8) = .690."""
    graph = build_graph(np.array([[1, 0], [1, 0], [0.6, 0.8]], np.float32), tau=0.6, neighbors=2)
    assert edges(graph).keys() == {(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)}
    assert edges(graph)[0, 1] == pytest.approx(0.982, abs=1e-3)
    assert edges(graph)[0, 2] == pytest.approx(0.690, abs=1e-3)
    assert graph.density == 1.0
    assert graph.edges == 3
    sparser = build_graph(np.array([[1, 0], [1, 0], [0.6, 0.8]], np.float32), tau=0.7, neighbors=2)
    assert edges(sparser).keys() == {(0, 1), (1, 0)}
    assert sparser.density == pytest.approx(1 / 3)
    assert [part.tolist() for part in sparser.components()] == [[0, 1], [2]]


@pytest.mark.parametrize("neighbors", [1, 3, 200])
def test_the_graph_is_the_definition(neighbors: int) -> None:
    embeddings = points(60)
    assert edges(build_graph(embeddings, tau=0.6, neighbors=neighbors)).keys() == brute_force(
        embeddings, 0.6, neighbors
    )


def test_ties_go_to_the_lower_index() -> None:
    same = np.tile(np.array([[0.6, 0.8]], np.float32), (5, 1))
    graph = build_graph(same, tau=0.6, neighbors=1)
    assert edges(graph).keys() == {(0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0), (0, 4), (4, 0)}


@pytest.mark.parametrize("block_rows", [1, 7, 64])
def test_the_block_size_changes_no_bit(block_rows: int) -> None:
    embeddings = points(150, 48)
    whole, blocks = (build_graph(embeddings, tau=0.3, neighbors=5, block_rows=rows) for rows in (512, block_rows))
    for field in ("indptr", "indices", "weights"):
        assert getattr(whole, field).tobytes() == getattr(blocks, field).tobytes()


def linked(n: int, pairs: np.ndarray) -> RelationalGraph:
    """n nodes and the edges between these pairs, (m, 2)."""
    both = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(both[:, 0], minlength=n))])
    return RelationalGraph(indptr, both[:, 1].astype(np.int32), np.ones(len(both), np.float32))


def check_components(graph: RelationalGraph) -> None:
    matrix = csr_matrix((graph.weights, graph.indices, graph.indptr), shape=(len(graph), len(graph)))
    count, labels = connected_components(matrix, directed=False)
    parts = graph.components()
    assert len(parts) == count
    assert sorted(node for part in parts for node in part.tolist()) == list(range(len(graph)))
    assert all(len({int(labels[node]) for node in part}) == 1 for part in parts)
    assert all(part.tolist() == sorted(part.tolist()) for part in parts)
    assert [part[0] for part in parts] == sorted(part[0] for part in parts)


def test_components_are_scipys() -> None:
    graph = build_graph(points(80), tau=0.93, neighbors=3)
    assert len(graph.components()) > 1
    check_components(graph)


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
@settings(deadline=None)
def test_components_of_any_graph_are_scipys(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    n, pairs = drawn
    check_components(linked(n, np.array(pairs, np.int64).reshape(-1, 2)))


@pytest.mark.parametrize("shape", ["shuffled line", "zigzag", "star around the last", "tree from the last"])
def test_components_of_long_thin_graphs_are_scipys(shape: str) -> None:
    """Where a label that moves by one edge at a time would need thousands of rounds."""
    n = 5000
    order = np.random.default_rng(0).permutation(n)
    zigzag = np.stack([np.arange(n // 2), np.arange(n // 2, n)], axis=1).reshape(-1)
    below = np.arange(1, n)
    pairs = {
        "shuffled line": (order[:-1], order[1:]),
        "zigzag": (zigzag[:-1], zigzag[1:]),
        "star around the last": (np.full(n - 1, n - 1), np.arange(n - 1)),
        "tree from the last": (n - 1 - below, n - 1 - (below - 1) // 2),
    }[shape]
    check_components(linked(n, np.stack(pairs, axis=1)))


@given(st.integers(0, 40), st.integers(0, 9), st.floats(0.05, 0.95), st.floats(0.0, 0.04), st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_it_is_symmetric_loopless_sorted_and_monotone_in_tau(
    n: int, seed: int, tau: float, more: float, k: int
) -> None:
    embeddings = points(n, seed=seed).reshape(n, 6)
    graph = build_graph(embeddings, tau=tau, neighbors=k)
    found = edges(graph)
    assert all(u != v and found[v, u] == weight >= tau - 1e-6 for (u, v), weight in found.items())
    assert list(found) == sorted(found)
    assert (
        edges(build_graph(embeddings, tau=tau + more, neighbors=n + 1)).keys()
        <= edges(build_graph(embeddings, tau=tau, neighbors=n + 1)).keys()
    )
    degrees = [sum(weight for (u, _), weight in found.items() if u == node) for node in range(n)]
    assert np.allclose(graph.weighted_degrees(), degrees, atol=1e-4)


def test_no_images_is_an_empty_graph() -> None:
    graph = build_graph(np.zeros((0, 4), np.float32), tau=0.6, neighbors=3)
    assert (len(graph), graph.density, graph.components()) == (0, 0.0, [])


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive, got -1"):
        build_graph(points(3), -1.0, 0.0, tau=0.6, neighbors=3)


def test_an_approximate_graph_lacks_few_edges_and_adds_none() -> None:
    pytest.importorskip("faiss")
    embeddings = points(3000, 24, seed=3)
    exact = build_graph(embeddings, tau=0.6, neighbors=8)
    found = build_graph(embeddings, tau=0.6, neighbors=8, exact_up_to=0)
    true, there = edges(exact), edges(found)
    # An edge that one end lacks may be the other end's: what is there is as strong as the weakest that was left out.
    assert len(true.keys() & there.keys()) > 0.93 * len(true)
    assert all(there[pair] == true[pair] for pair in true.keys() & there.keys())
    assert all(weight >= 0.6 for weight in there.values())
    assert 0.95 <= found.recall <= 1 == exact.recall
    again = build_graph(embeddings, tau=0.6, neighbors=8, exact_up_to=0)
    assert edges(again) == there


def test_without_faiss_all_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manylens.method.graph.has_index", lambda: False)
    embeddings = points(400)
    found = build_graph(embeddings, tau=0.6, neighbors=8, exact_up_to=0)
    assert found.recall == 1
    assert edges(found) == edges(build_graph(embeddings, tau=0.6, neighbors=8))
