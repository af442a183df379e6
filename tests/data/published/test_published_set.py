import pytest

from neq.data.published import ListedImage
from neq.data.published.published_set import check_lists, count_deviations
from neq.utils.errors import UserError
from tests.data.published.test_split_plan import listed


def test_an_image_in_two_splits_is_refused():
    images = listed()
    twice = [*images, images[0]._replace(split="test")]
    with pytest.raises(UserError, match=r"'all/train_0_0\.jpg' twice, in train and in test"):
        check_lists(twice)


def test_a_class_of_two_names_is_refused():
    images = listed()
    images[1] = images[1]._replace(class_name="other")
    with pytest.raises(UserError, match="class 0 both 'name 0' and 'other'"):
        check_lists(images)


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/passwd", "all/../../x.jpg"])
def test_a_listed_path_that_leads_out_is_refused(path):
    images = [*listed(), ListedImage("train", 0, "name 0", path)]
    with pytest.raises(UserError, match="which leads out of the folder"):
        check_lists(images)


def test_empty_lists_are_refused():
    with pytest.raises(UserError, match="name no image"):
        check_lists([])


def test_counts_are_compared_with_the_official_ones():
    images = listed(train=3, test=2)
    assert count_deviations(images, {"train": 6, "test": 4}) == []
    assert count_deviations(images[1:], {"train": 6, "test": 4}) == ["train has 5 images, officially 6"]
    assert count_deviations(images, {"train": 6, "validation": 1020, "test": 4}) == [
        "val has 0 images, officially 1,020"
    ]
