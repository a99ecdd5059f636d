import pytest
import torch

from reviewkd_det.core.level_scale import LevelScale

FIRST = [torch.full((2, 3, 4, 6), 3.0), torch.full((2, 5, 2, 3), -0.5)]
SECOND = [torch.full((2, 3, 4, 6), 1.0), torch.full((2, 5, 2, 3), 1.5)]


def test_levels_of_the_first_batch_leave_with_a_mean_square_of_one():
    scale = LevelScale(2)
    levels = [torch.randn(2, 3, 5, 7) * 40, torch.randn(2, 4, 3, 4) * 0.01]
    for level in scale(levels):
        assert level.square().mean().item() == pytest.approx(1)


def test_the_mean_square_is_averaged_over_the_batches_then_fixed():
    scale = LevelScale(2, batches=2)
    scale(FIRST)
    assert not scale.is_fixed
    scale(SECOND)
    expected = torch.tensor([(9 + 1) / 2, (0.25 + 2.25) / 2]).sqrt()
    torch.testing.assert_close(scale.scales, expected)
    assert scale.is_fixed
    scaled = scale([100 * level for level in FIRST])
    torch.testing.assert_close(scale.scales, expected)
    assert scaled[0].flatten()[0].item() == pytest.approx(300 / expected[0].item())


def test_evaluation_measures_nothing():
    scale = LevelScale(2).eval()
    scaled = scale(FIRST)
    torch.testing.assert_close(scaled, FIRST)
    assert not scale.measured


def test_what_was_measured_is_in_the_state():
    scale = LevelScale(2, batches=1)
    scale(FIRST)
    twin = LevelScale(2, batches=1)
    twin.load_state_dict(scale.state_dict())
    torch.testing.assert_close(twin(SECOND), scale(SECOND))
    assert twin.is_fixed


def test_a_level_of_zeros_stays_zero():
    assert not LevelScale(1)([torch.zeros(2, 3, 4, 5)])[0].any()


def test_wrong_counts_are_refused():
    with pytest.raises(ValueError, match="must number 2; got 1"):
        LevelScale(2)(FIRST[:1])
    with pytest.raises(ValueError, match="positive; got 0 and 10"):
        LevelScale(0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_leaves_as_float32(dtype):
    (level,) = LevelScale(1)([torch.full((2, 3, 4, 6), 1000.0, dtype=dtype)])
    assert level.dtype == torch.float32
    assert level.square().mean().item() == pytest.approx(1)


def test_it_never_asks_the_device(caplog):
    """Tensors on the meta device have no values: asking for one would raise."""
    scale = LevelScale(2, batches=2).to("meta")
    levels = [level.to("meta") for level in FIRST]
    for _ in range(3):
        assert [level.shape for level in scale(levels)] == [level.shape for level in FIRST]
    assert scale.is_fixed


def test_a_loaded_scale_goes_on_where_it_was():
    scale = LevelScale(2, batches=2)
    scale(FIRST)
    twin = LevelScale(2, batches=2)
    twin.load_state_dict(scale.state_dict())
    for each in (scale, twin):
        each(SECOND)
    assert twin.is_fixed
    torch.testing.assert_close(twin.scales, scale.scales, rtol=0, atol=0)


def test_the_scales_are_logged_by_name_once(caplog):
    scale = LevelScale(2, batches=2, names=("p2", "p3"))
    with caplog.at_level("INFO"):
        for _ in range(4):
            scale(FIRST)
    (line,) = caplog.messages
    assert "p2 3, p3 0.5" in line
