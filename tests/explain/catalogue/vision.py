"""Every family of torchvision's classifiers, as small as its constructors allow."""

from functools import partial

from torch import nn
from torchvision import models
from torchvision.models import convnext, densenet, efficientnet, maxvit, vgg, video

from .network import network, real

CLASSES = 5


def vision(name, size, contains, shape=None, **details):
    """Enters one of torchvision's families."""
    return network(f"torchvision {name}", real(*(shape or (3, size, size))), contains, **details)


def whole(constructor, **options):
    """A network of torchvision as it stands, with random weights."""
    return partial(constructor, weights=None, num_classes=CLASSES, **options)


def small_head(model, features):
    """What is often put in place of VGG's and AlexNet's large classifier."""
    model.classifier = nn.Sequential(
        nn.Dropout(), nn.Linear(features, 16), nn.ReLU(inplace=True), nn.Linear(16, CLASSES)
    )
    return model


@vision("AlexNet", 63, "large strides, adaptive pooling", gain=2.4, zennit="plain", piecewise=True)
def alexnet():
    return small_head(models.alexnet(weights=None), 256 * 36)


@vision("VGG", 32, "plain", gain=2.4, zennit="plain", piecewise=True)
def vgg_plain():
    return small_head(vgg.VGG(vgg.make_layers([8, "M", 8, "M", 16, 16, "M", 512]), init_weights=False), 512 * 49)


@vision("VGG, BatchNorm", 32, "BatchNorm behind convolutions", gain=2.4, zennit="merge", piecewise=True)
def vgg_norm():
    return small_head(
        vgg.VGG(vgg.make_layers([8, "M", 8, "M", 16, 16, "M", 512], batch_norm=True), init_weights=False), 512 * 49
    )


def s3d():
    model = models.video.s3d(weights=None, num_classes=CLASSES)
    model.avgpool = nn.Identity()  # its windows of 7 x 7 need pictures of 224 x 224
    return model


vision("ResNet", 32, "residual sums, BatchNorm", zennit="resnet", piecewise=True)(whole(models.resnet18))
vision("ResNeXt", 32, "grouped convolutions", zennit="resnet", piecewise=True)(
    lambda: models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], CLASSES, groups=4, width_per_group=8)
)
vision("Wide ResNet", 32, "wide bottlenecks", zennit="resnet", piecewise=True)(
    lambda: models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], CLASSES, width_per_group=96)
)
vision(
    "SqueezeNet",
    33,
    "cat of convolutions, class scores by a convolution",
    gain=1.0,
    zennit="plain",
    piecewise=True,
)(whole(models.squeezenet1_1))
vision("DenseNet", 32, "BatchNorm before ReLU and convolution, cat", piecewise=True)(
    lambda: densenet.DenseNet(8, (2, 2, 2, 2), 16, num_classes=CLASSES)
)
vision("GoogLeNet", 32, "inception blocks", zennit="merge", piecewise=True)(
    whole(models.googlenet, aux_logits=False, init_weights=False, transform_input=False)
)
vision("Inception v3", 75, "factorised convolutions, average pooling branch, transform of the input")(
    whole(models.inception_v3, aux_logits=False, init_weights=False, transform_input=True)
)
vision("MobileNet v2", 32, "ReLU6, depthwise convolutions, linear bottlenecks", zennit="residual")(
    whole(models.mobilenet_v2)
)
vision("MobileNet v3", 32, "hardswish, squeeze-and-excite with hardsigmoid")(whole(models.mobilenet_v3_small))
vision("MNASNet", 32, "depthwise convolutions, residual sums", zennit="residual", piecewise=True)(
    whole(models.mnasnet0_5)
)
vision("ShuffleNet v2", 32, "channel shuffle by view and transpose, chunk", zennit="merge", piecewise=True)(
    whole(models.shufflenet_v2_x0_5)
)
vision("RegNet X", 32, "grouped bottlenecks", zennit="residual", piecewise=True)(whole(models.regnet_x_400mf))
vision("RegNet Y", 32, "squeeze-and-excite")(whole(models.regnet_y_400mf))
vision("EfficientNet", 32, "SiLU, squeeze-and-excite, stochastic depth")(
    lambda: efficientnet.EfficientNet(
        [
            efficientnet.MBConvConfig(e, k, s, i, o, n)
            for e, k, s, i, o, n in (
                (1, 3, 1, 8, 8, 1),
                (6, 3, 2, 8, 12, 2),
                (6, 5, 2, 12, 16, 2),
                (6, 3, 2, 16, 24, 2),
            )
        ],
        0.2,
        num_classes=CLASSES,
    )
)
vision("EfficientNet v2", 32, "fused blocks")(
    lambda: efficientnet.EfficientNet(
        [
            efficientnet.FusedMBConvConfig(1, 3, 1, 8, 8, 2),
            efficientnet.FusedMBConvConfig(4, 3, 2, 8, 16, 2),
            efficientnet.MBConvConfig(4, 3, 2, 16, 24, 2),
        ],
        0.2,
        num_classes=CLASSES,
        last_channel=64,
    )
)
vision("ConvNeXt", 64, "depthwise 7 x 7, LayerNorm over channels, GELU, layer scale", gain=8)(
    lambda: convnext.ConvNeXt(
        [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, 24, 2), convnext.CNBlockConfig(24, None, 1)],
        num_classes=CLASSES,
    )
)
vision("vision transformer", 16, "nn.MultiheadAttention, class token", gain=8, constant=True)(
    lambda: models.VisionTransformer(16, 8, 2, 2, 16, 24, num_classes=CLASSES)
)
vision("Swin transformer", 32, "shifted windows by roll, relative position bias, masks", gain=8)(
    lambda: models.SwinTransformer([2, 2], 8, [2, 2], [2, 4], [4, 4], num_classes=CLASSES)
)
vision("Swin transformer v2", 32, "cosine attention: normalised queries and keys", gain=8)(
    lambda: models.SwinTransformer(
        [2, 2],
        8,
        [2, 2],
        [2, 4],
        [4, 4],
        num_classes=CLASSES,
        block=models.swin_transformer.SwinTransformerBlockV2,
        downsample_layer=models.swin_transformer.PatchMergingV2,
    )
)
vision("MaxViT", 32, "convolutions, block and grid attention", gain=8)(
    lambda: maxvit.MaxVit((32, 32), 8, 4, [8, 16], [1, 1], 8, 0.2, num_classes=CLASSES)
)
vision("R3D", 16, "3-D convolutions", zennit="residual", piecewise=True, shape=(3, 4, 16, 16))(
    lambda: video.VideoResNet(
        video.resnet.BasicBlock, [video.resnet.Conv3DSimple] * 4, [1, 1, 1, 1], video.resnet.BasicStem, CLASSES
    )
)
vision(
    "R(2+1)D", 16, "convolutions in space, then in time", zennit="residual", piecewise=True, shape=(3, 4, 16, 16)
)(
    lambda: video.VideoResNet(
        video.resnet.BasicBlock, [video.resnet.Conv2Plus1D] * 4, [1, 1, 1, 1], video.resnet.R2Plus1dStem, CLASSES
    )
)
vision("S3D", 64, "separable 3-D inception", zennit="merge", piecewise=True, shape=(3, 8, 32, 32))(s3d)
vision("MViT", 16, "pooled attention, decomposed relative positions", gain=8, shape=(3, 4, 32, 32), constant=True)(
    lambda: video.MViT(
        (32, 32),
        4,
        [
            video.mvit.MSBlockConfig(1, 8, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
            video.mvit.MSBlockConfig(2, 16, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
        ],
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        num_classes=CLASSES,
    )
)
vision("Swin transformer 3-D", 16, "shifted windows in space and time", gain=8, shape=(3, 4, 32, 32))(
    lambda: video.SwinTransformer3d([2, 4, 4], 8, [2, 2], [2, 4], [2, 4, 4], num_classes=CLASSES)
)
