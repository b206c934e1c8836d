# docker build -t rnnx . && docker run --gpus all -v $PWD/data:/data -v $PWD/logs:/work/logs rnnx fit --config convdeep
FROM python:3.12-slim
WORKDIR /work
COPY constraints.txt pyproject.toml README.md LICENSE /source/
COPY configs /source/configs
COPY rnnx_lightning /source/rnnx_lightning
RUN pip install --no-cache-dir --constraint /source/constraints.txt /source
ENV RNNX_DATA_DIR=/data
ENTRYPOINT ["rnnx"]
CMD ["doctor"]
